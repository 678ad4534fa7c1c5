"""`pipeline preprocess` under SIGKILL: of itself, and of a dask worker. Slow."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest

from tests.support.command_line import (
    collect,
    environment,
    preprocess_command,
    save_brain,
    store_digest,
)
from tests.support.made_once import MadeOnce

NUM_SCANS = 4
KILLS = int(os.environ.get("KILLS", "1"))
"""Ten for a thorough run: KILLS=10 pytest tests/preprocessing/test_preprocess_kills.py"""
Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def manifest(made_once: MadeOnce) -> Path:
    return made_once("brains", _brains)


def _brains(root: Path) -> Path:
    for i in range(NUM_SCANS):
        save_brain(root / "in" / f"s{i}.nii.gz", seed=i)
    (root / "in" / "broken.nii.gz").write_bytes(b"no gzip")
    return collect(root / "in", root / "cohort")


@pytest.fixture(scope="module")
def calm(manifest: Path, made_once: MadeOnce) -> tuple[str, float]:
    """The digest of an undisturbed run's store, and how long it took (s)."""
    return made_once("calm", lambda folder: _undisturbed(manifest, folder / "v.zarr"))


def _undisturbed(manifest: Path, out: Path) -> tuple[str, float]:
    started = time.monotonic()
    assert _start(manifest, out).wait(600) == 0
    seconds = time.monotonic() - started
    assert _counts(out) == (NUM_SCANS, 1)
    return store_digest(out), seconds


def _start(manifest: Path, out: Path, *options: str) -> Process:
    options = options or ("--workers", "1")
    command = preprocess_command(manifest, out, "--quiet", *options)
    return subprocess.Popen(
        command,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    """Where a shell started pytest in the background, children would inherit a deaf ear."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _counts(out: Path) -> tuple[int, int]:
    """Return how many scans are in the store and in quarantine."""
    status = pd.read_csv(out.with_suffix(".qc.csv"))["status"]
    return int(status.isin(["pass", "warn"]).sum()), len(pd.read_csv(out.with_suffix(".q.csv")))


@pytest.mark.slow
def test_kills_give_the_bytes_of_an_undisturbed_run(
    manifest: Path, calm: tuple[str, float], tmp_path: Path
) -> None:
    digest, whole = calm
    rng, kills, rounds = random.Random(3), 0, 0
    while kills < KILLS:
        rounds += 1
        out = tmp_path / f"{rounds}.zarr"
        while kills < KILLS and not out.exists():
            process = _start(manifest, out)
            if kills == 0:  # surely in the middle; the others anywhere
                _wait_for_a_scan(out, process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.2 * whole, 1.1 * whole) if kills else 0)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
                kills += 1
        assert _start(manifest, out).wait(600) == 0
        assert store_digest(out) == digest
        assert _counts(out) == (NUM_SCANS, 1)
        assert not _staged(out).exists()


def _staged(out: Path) -> Path:
    return out.with_name(f"{out.name}.work")


def _wait_for_a_scan(out: Path, process: Process) -> None:
    """Return as soon as one scan is done and others are not."""
    while not any(_staged(out).glob("*.npz")):
        assert process.poll() is None
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _dask(*arguments: str) -> Iterator[Process]:
    """Run a `dask` command, ended at the latest on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


@pytest.mark.slow
def test_a_killed_dask_worker_changes_nothing(
    manifest: Path, calm: tuple[str, float], tmp_path: Path
) -> None:
    out, address = tmp_path / "v.zarr", f"tcp://127.0.0.1:{_free_port()}"
    worker = ("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    folder = ("--local-directory", str(tmp_path / "dask"))
    scheduler = ("scheduler", "--host", address, "--dashboard-address", "127.0.0.1:0")
    with _dask(*scheduler), _dask(*worker, *folder), _dask(*worker, *folder) as victim:
        process = _start(manifest, out, "--scheduler", address)
        _wait_for_a_scan(out, process)
        os.killpg(victim.pid, signal.SIGKILL)
        assert process.wait(600) == 0
    assert store_digest(out) == calm[0]
    assert _counts(out) == (NUM_SCANS, 1)


@pytest.mark.slow
def test_ctrl_c_keeps_finished_scans(
    manifest: Path, calm: tuple[str, float], tmp_path: Path
) -> None:
    out = tmp_path / "v.zarr"
    process = _start(manifest, out, "--workers", "2")
    _wait_for_a_scan(out, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130
    finished = len(list(_staged(out).glob("*.npz")))
    assert finished > 0
    assert _start(manifest, out).wait(600) == 0
    assert store_digest(out) == calm[0]
