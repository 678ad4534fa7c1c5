"""How time and memory grow: with the number of scans in a latent store, and with workers."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.framework.registry import Measurement, Row
from benchmarks.studies.encode import attributes
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays, open_latents
from pipeline.stores.verify import verify_store

LATENT = (3, 16, 20, 16)
COUNTS = (100, 1_000, 10_000)


def write_latents(path: Path, count: int) -> Path:
    """Write noise in place of latents, a chunk at a time."""
    arrays = latent_arrays(LATENT, rows_per_chunk=64)
    builder = StoreBuilder(path, attributes("latents", count), arrays, unit_rows=64)
    rng = np.random.default_rng(0)
    for unit in builder.pending():
        values = rng.standard_normal((len(unit), *LATENT), dtype=np.float32).astype(np.float16)
        builder.write(unit, {"posterior_mean": values, "posterior_logvar": values})
    builder.finish()
    return path


def time_store(folder: Path, count: int) -> dict[str, float]:
    """Return seconds of writing, opening, verifying and loading a store, and the peak in MB."""
    marks = [time.perf_counter()]
    path = write_latents(folder / f"{count}.zarr", count)
    marks.append(time.perf_counter())
    store = open_latents(path)
    marks.append(time.perf_counter())
    assert verify_store(path) == {}
    marks.append(time.perf_counter())
    before_load = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    store.load(store.attributes.scan_ids)
    marks.append(time.perf_counter())
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    names = ("write s", "open s", "verify s", "load s")
    seconds = dict(zip(names, np.diff(marks), strict=True))
    return seconds | {"peak before loading MB": before_load, "peak MB": loaded}


def measure_scans(folder: Path) -> Measurement:
    """Write, open, verify and load stores of growing size, each in a fresh process."""
    numbers = {}
    for count in COUNTS:
        for name, value in _in_fresh_process(folder, count).items():
            numbers[f"{count} scans, {name}"] = value
    steps = ("write s", "open s", "verify s", "load s")
    few, many = (sum(numbers[f"{n} scans, {s}"] for s in steps) for n in COUNTS[1:])
    return Measurement(
        value=many / few / (COUNTS[2] / COUNTS[1]),
        numbers=numbers,
        note=f"Latents of {LATENT}, float16, noise (which does not compress). The value is the time"
        f" a scan at {COUNTS[2]:,} over that at {COUNTS[1]:,}.",
    )


def _in_fresh_process(folder: Path, count: int) -> dict[str, float]:
    code = (
        "import json, sys; from pathlib import Path; from benchmarks.rows.scale import time_store;"
        "print(json.dumps(time_store(Path(sys.argv[1]), int(sys.argv[2]))))"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(count)],
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


ROWS = [
    Row(
        name="scale-scans",
        what="latent store of 10,000 scans: write, open, verify, load",
        against="1,000 scans, time a scan",
        measure=measure_scans,
        target=1.2,
        unit="× linear",
        seconds=60,
    )
]
