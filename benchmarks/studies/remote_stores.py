"""Open and load many small latents from disk, a zip file, and S3 and HTTP on this machine.

python -m benchmarks.studies.remote_stores --out remote-stores.md

S3 is moto's server, in a process of its own. HTTP is Python's own file server, in another. Each
place is loaded by a fresh `open_latents`, so many times, in turns; the best time of each counts.
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
from pathlib import Path

import numpy as np

from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays, open_latents
from pipeline.stores.push import push_store
from schemas.stores import StoreAttributes

SHAPE = (3, 4, 5, 4)
"""Latents of the phantom grid's size."""
CHUNK = 64


def write_latents(out: Path, scans: int) -> None:
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
        out, attributes, latent_arrays(SHAPE, rows_per_chunk=CHUNK), unit_rows=CHUNK
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


def seconds_to_load(path: Path) -> float:
    """Return the time (s) to open a store and load all its latents."""
    start = time.perf_counter()
    store = open_latents(path)
    latents = store.load(store.attributes.scan_ids)
    assert len(latents) == len(store)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        disk, zipped = Path(folder) / "latents.zarr", Path(folder) / "latents.zip"
        write_latents(disk, args.scans)
        push_store(disk, zipped)
        s3 = stack.enter_context(served("moto.server", "-H", "127.0.0.1", "-p"))
        web = stack.enter_context(
            served("http.server", "--bind", "127.0.0.1", "--directory", folder)
        )
        os.environ |= {
            "AWS_ENDPOINT_URL": s3,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        request = urllib.request.Request(f"{s3}/lab", method="PUT")
        urllib.request.urlopen(request).close()
        push_store(disk, Path("s3://lab/latents.zarr"))
        places = {
            "disk": disk,
            "zip file": zipped,
            "HTTP": Path(f"{web}/latents.zarr"),
            "S3": Path("s3://lab/latents.zarr"),
        }
        times: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(args.repeats):
            for name, path in places.items():
                times[name].append(seconds_to_load(path))
    lines = [f"{args.scans} latents of {SHAPE}, {CHUNK} a chunk; best of {args.repeats}", ""]
    lines += ["| place | seconds | times disk |", "|---|---|---|"]
    base = min(times["disk"])
    lines += [f"| {name} | {min(t):.2f} | {min(t) / base:.1f} |" for name, t in times.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
