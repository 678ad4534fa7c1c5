"""Encoding under SIGKILL, and two encodings at once, in processes of their own."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from pipeline.encoding import unit_writer as fill
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.stores.verify import verify_store
from schemas.errors import ContractError
from schemas.params import EncodeParams

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=2, batch_size=2, precision="fp32")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


def start(volumes, autoencoder, out, log):
    """Encode in a child that writes down every row it hands to the encoder."""
    read = fill._read

    def logged(store, rows):
        with log.open("a") as file:
            file.write(json.dumps(rows) + "\n")
        return read(store, rows)

    def child():
        torch.set_num_threads(1)
        fill._read = logged
        encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    return process


def marked_rows(out):
    marks = out.with_name(out.name + ".building") / "marks"
    ranges = [json.loads(m.read_text())["rows"] for m in sorted(marks.glob("[0-9]*.json"))]
    return {row for first, end in ranges for row in range(first, end)}


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.slow
def test_twenty_kills_give_the_bytes_of_an_undisturbed_run(tmp_path, volumes, autoencoder):
    calm = tmp_path / "calm.zarr"
    started = time.monotonic()
    encode_volumes(volumes, autoencoder, calm, PARAMS, device=CPU)
    whole = time.monotonic() - started
    rng, kills, rounds, resumed = random.Random(0), 0, 0, 0
    while kills < 20:
        out = tmp_path / f"{rounds}.zarr"
        while not out.exists():
            log = tmp_path / "rows.log"
            log.unlink(missing_ok=True)
            done = marked_rows(out)
            process = start(volumes, autoencoder, out, log)
            process.join(rng.uniform(0, whole))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills += 1
            lines = log.read_text().splitlines() if log.exists() else []
            given = [row for line in lines if line.endswith("]") for row in json.loads(line)]
            assert not done & set(given)
            assert len(given) == len(set(given))
            resumed += bool(done and given)
        assert verify_store(out) == {}
        assert contents(out) == contents(calm)
        rounds += 1
    assert resumed


@pytest.mark.slow
def test_two_encodes_of_one_store_at_once(tmp_path, volumes, autoencoder, monkeypatch):
    out, original = tmp_path / "l.zarr", autoencoder.net.encode
    monkeypatch.setattr(autoencoder.net, "encode", lambda x: time.sleep(0.5) or original(x))
    first = start(volumes, autoencoder, out, tmp_path / "rows.log")
    while not (tmp_path / "rows.log").exists():
        time.sleep(0.05)
    with pytest.raises(ContractError, match="another process is writing it"):
        encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    first.join()
    assert first.exitcode == 0
    assert verify_store(out) == {}
