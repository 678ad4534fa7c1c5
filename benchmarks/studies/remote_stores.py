"""Open and load many small latents from disk, from a zip file and from S3 on this machine.

python -m benchmarks.studies.remote_stores --out remote-stores.md

S3 is moto's server, in a process of its own, written in Python; `--address` names another one,
with an empty bucket `lab`, for credentials in the environment. Each place is loaded by a fresh
`open_latents`, so many times, in turns; the best time of each counts. The row of plain requests
fetches the same objects, 16 at a time, and does nothing with them: what this server needs, whoever
asks.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore

from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays, open_latents
from pipeline.stores.push import push_store
from pipeline.stores.remote import open_client
from schemas.stores import StoreAttributes

SHAPE = (3, 4, 5, 4)
"""Latents of the phantom grid's size."""
REQUESTS_AT_ONCE = 16


def write_latents(out: Path, scans: int, chunk: int) -> None:
    """Write a latent store of smooth noise."""
    ids = [f"sub-{i:05d}" for i in range(scans)]
    attributes = StoreAttributes(
        kind="latents",
        made_by="remote_stores",
        params={},
        digests={"autoencoder": "none"},
        grid={
            "shape": [16, 20, 16],
            "affine": np.diag([4.0, 4, 4, 1]).tolist(),
            "orientation": "RAS",
        },
        scan_ids=ids,
        fingerprints=ids,
    )
    builder = StoreBuilder(
        out, attributes, latent_arrays(SHAPE, rows_per_chunk=chunk), unit_rows=chunk
    )
    generator = np.random.default_rng(0)
    for unit in builder.pending():
        content = {
            name: generator.normal(size=(len(unit), *SHAPE)).astype(np.float16)
            for name in ("posterior_mean", "posterior_logvar")
        }
        builder.write(unit, content)
    builder.finish()


@contextlib.contextmanager
def served(*words: str) -> Iterator[str]:
    """Yield the address of a server, `python -m WORDS PORT`, on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *words, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def server(address: str | None) -> Iterator[str]:
    """Yield the address of an S3 server with a bucket `lab`: the one given, or moto's."""
    if address is not None:
        yield address
        return
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    os.environ |= credentials | {"AWS_DEFAULT_REGION": "us-east-1"}
    with served("moto.server", "-H", "127.0.0.1", "-p") as moto:
        request = urllib.request.Request(f"{moto}/lab", method="PUT")
        urllib.request.urlopen(request).close()
        yield moto


def seconds_to_load(path: Path) -> float:
    """Return the time (s) to open a store and load all its latents."""
    start = time.perf_counter()
    store = open_latents(path)
    latents = store.load(store.attributes.scan_ids)
    assert len(latents) == len(store)
    return time.perf_counter() - start


def seconds_of_requests(address: str) -> float:
    """Return the time (s) to fetch every object of a store."""
    client = open_client(address)
    names = [entry["path"] for entries in obstore.list(client) for entry in entries]
    start = time.perf_counter()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        assert all(pool.map(lambda name: len(obstore.get(client, name).bytes()), names))
    return time.perf_counter() - start


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--address", help="http://127.0.0.1:PORT of a server that is there")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [f"{args.scans} latents of {SHAPE}; best of {args.repeats}", ""]
    lines += ["| scans a chunk | place | seconds | times disk |", "|---|---|---|---|"]
    with server(args.address) as address:
        os.environ["AWS_ENDPOINT_URL"] = address
        for chunk in args.chunks:
            times = {name: min(found) for name, found in measured(chunk, args).items()}
            lines += [
                f"| {chunk} | {name} | {best:.2f} | {best / times['disk']:.1f} |"
                for name, best in times.items()
            ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


def measured(chunk: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the times (s) of each place for a store with so many scans a chunk."""
    with tempfile.TemporaryDirectory() as folder:
        disk, zipped = Path(folder) / "latents.zarr", Path(folder) / "latents.zip"
        remote = f"s3://lab/latents-{chunk}.zarr"
        write_latents(disk, args.scans, chunk)
        push_store(disk, zipped)
        push_store(disk, Path(remote))
        times: dict[str, list[float]] = {"disk": [], "zip file": [], "S3": [], "S3, requests": []}
        for _ in range(args.repeats):
            for name, path in zip(times, (disk, zipped, Path(remote)), strict=False):
                times[name].append(seconds_to_load(path))
            times["S3, requests"].append(seconds_of_requests(remote))
    return times


if __name__ == "__main__":
    main()
