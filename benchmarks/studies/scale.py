"""What a latent store of 10,000 and of 100,000 scans costs a scan: plan, encode, resume, read.

python -m benchmarks.studies.scale --out benchmarks/results/scale-cpu.md

Volumes are noise on a tiny grid and the autoencoder is tiny and untrained, so that what is
measured is the bookkeeping: the forward pass of a real autoencoder takes a hundred times as long.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.framework.harness import machine
from benchmarks.studies.encode import TINY, synthetic_volumes, untrained
from pipeline.encoding.run import encode_volumes
from pipeline.stores.latents import open_latents
from pipeline.stores.verify import verify_store
from schemas.params import EncodeParams

GRID = (16, 16, 16)
COUNTS = (10_000, 100_000)
ADDED = 64
ROUNDS = 3
"""Of steps that change nothing; the least counts."""


def time_scans(folder: Path, count: int) -> dict[str, float]:
    """Return CPU seconds of each step of one size."""
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        taken = time.process_time() - started
        seconds[name] = min(taken, seconds.get(name, taken))

    ae = untrained(folder / f"ae-{count}", **TINY, grid=GRID)
    volumes = synthetic_volumes(folder / f"v{count}.zarr", count, GRID)
    out, cpu = folder / f"l{count}.zarr", torch.device("cpu")
    params = EncodeParams(batch_size=64, precision="fp32")
    with step("encode, the forward pass of a tiny network in it"):
        encode_volumes(volumes, ae, out, params, device=cpu)
    for _ in range(ROUNDS):
        with step("encode again: nothing to do"):
            made = encode_volumes(volumes, ae, out, params, device=cpu)
        assert made.encoded == 0
        with step("verify"):
            assert verify_store(out) == {}
        with step("open and read all latents (training, embed)"):
            store = open_latents(out)
            latents = store.load(store.attributes.scan_ids)
        assert len(latents) == count
    more = synthetic_volumes(folder / f"m{count}.zarr", count + ADDED, GRID)
    with step(f"encode with {ADDED} scans more"):
        made = encode_volumes(more, ae, out, params, device=cpu)
    assert made.encoded == ADDED
    return seconds


def _in_fresh_process(folder: Path, count: int) -> dict[str, float]:
    code = (
        "import json, sys; from pathlib import Path;"
        "from benchmarks.studies.scale import time_scans;"
        "print(json.dumps(time_scans(Path(sys.argv[1]), int(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(count)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    sizes = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            sizes.append(_in_fresh_process(Path(name), count))
    lines = [
        "# Bookkeeping of large stores",
        "",
        f"{machine()}, one thread; CPU milliseconds a scan. Noise of {GRID} voxels.",
        "",
        "| step | " + " | ".join(f"{count:,} scans" for count in counts) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for name in sizes[0]:
        cells = [f"{1000 * s[name] / n:.3f}" for s, n in zip(sizes, counts, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
