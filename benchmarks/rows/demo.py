"""The row of the demo: everything after installation, with the memory of all its processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.framework.registry import Measurement, Row
from stages.scaffold import scaffold

GIB = 2**30
ROOT = Path(__file__).parents[2]


def measure_demo(folder: Path) -> Measurement:
    """Run all ten stages of `make demo` in an empty study."""
    study = folder / "study"
    scaffold(study, preset="demo", input_path=None, overrides=[], force=False)
    commands = folder / "bin"
    commands.mkdir()
    (commands / "pipeline").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stages.cli "$@"\n')
    (commands / "pipeline").chmod(0o755)
    paths = {"PATH": str(commands), "PYTHONPATH": str(ROOT)}
    environment = os.environ | {
        name: os.pathsep.join([path, os.environ.get(name, "")]) for name, path in paths.items()
    }
    started = time.perf_counter()
    command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    with subprocess.Popen(command, cwd=study, env=environment, stdout=subprocess.DEVNULL) as run:
        peak = 0
        while run.poll() is None:
            peak = max(peak, _resident(run.pid))
            time.sleep(0.2)
    if run.returncode:
        raise RuntimeError(f"dvc repro: exit code {run.returncode}")
    minutes = (time.perf_counter() - started) / 60
    return Measurement(
        value=minutes,
        rounds={"dvc repro, min": [minutes]},
        numbers={"resident memory of all processes at the peak, GiB (target 6)": peak / GIB},
        note="Pages that processes share are counted in each.",
    )


def _resident(pid: int) -> int:
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


ROWS = [
    Row(
        name="demo",
        what="`make demo` after installation, ten stages",
        against="–",
        measure=measure_demo,
        target=15,
        unit="min",
        seconds=600,
        asked=True,
    )
]
