"""Rows of preprocessing, on phantom heads made on the spot: a head's cost, two workers, memory."""

import time
from pathlib import Path

from benchmarks.framework.registry import Measurement, Row
from benchmarks.studies.preprocess import GRIDS, peak_mb
from pipeline.cohort.ingest import build_manifest
from pipeline.imaging.preprocess_scan import preprocess_scan
from pipeline.phantom.cohort import make_phantom_cohort
from pipeline.preprocessing.run import preprocess_cohort
from pipeline.runtime.devices import available_cpus
from schemas.params import CohortParams, PhantomParams, PreprocessParams

SCANS = 16
FINE = "paper, 1.5 mm"


def phantoms(folder: Path, *, subjects: int, zooms: float) -> Path:
    """Return a BIDS folder of raw phantom heads, one visit each."""
    made = PhantomParams(subjects=subjects, zooms=zooms, multi_visit_share=0)
    return make_phantom_cohort(folder / "bids", made, workers=2)


def preprocess_seconds(folder: Path, ways: dict[str, tuple[int, str]]) -> dict[str, list[float]]:
    """Return the wall time of preprocessing the same heads, {way: (workers, device)}."""
    cohort = CohortParams(source="bids")
    bids = phantoms(folder, subjects=SCANS, zooms=2.0)
    manifest, refused = build_manifest(cohort, input_path=bids, cache=folder / "cache")
    seconds = {}
    for number, (way, (workers, device)) in enumerate(ways.items()):
        out = folder / f"{number}"
        started = time.perf_counter()
        preprocess_cohort(
            manifest,
            PreprocessParams(),
            manifest_dir=folder,
            out=out / "volumes.zarr",
            qc_csv=out / "qc.csv",
            quarantine_csv=out / "quarantine.csv",
            prior_quarantine=refused,
            workers=workers,
            device=device,
        )
        seconds[way] = [time.perf_counter() - started]
    return seconds


def measure_workers(folder: Path) -> Measurement:
    """Preprocess the same heads with one worker and with two."""
    seconds = preprocess_seconds(folder, {"1 worker": (1, "cpu"), "2 workers": (2, "cpu")})
    return Measurement(
        value=seconds["1 worker"][0] / seconds["2 workers"][0],
        rounds=seconds,
        note=f"{SCANS} phantom heads of 2 mm, starting the workers included.",
    )


def measure_gpu(folder: Path) -> Measurement:
    """Preprocess the same heads with one worker on the CPU, and with skulls stripped on the GPU."""
    workers = min(8, available_cpus())
    ours, theirs = f"{workers} workers, skulls on the GPU", "1 worker"
    ways = {theirs: (1, "cpu"), f"{workers} workers": (workers, "cpu"), ours: (workers, "cuda")}
    seconds = preprocess_seconds(folder, ways)
    return Measurement(
        value=seconds[theirs][0] / seconds[ours][0],
        rounds=seconds,
        note=f"{SCANS} phantom heads of 2 mm, starting the workers included.",
    )


def measure_head(folder: Path) -> Measurement:
    """Give the CPU-seconds of one raw 1 mm head at the paper preset's grid."""
    bids = phantoms(folder, subjects=1, zooms=1.0)
    (head,) = bids.rglob("*_T1w.nii.gz")
    params = PreprocessParams(grid=GRIDS[FINE])
    rounds = []
    for _ in range(3):  # the first loads libraries, network and template
        started = time.process_time()
        preprocess_scan(head, params)
        rounds.append(time.process_time() - started)
    return Measurement(
        value=min(rounds[1:]),
        rounds={"preprocess, CPU-s": rounds[1:]},
        numbers={"first head in a process, CPU-s": rounds[0]},
        note="A phantom head of 1 mm to 128×160×128 at 1.5 mm, affine estimated at 3 mm.",
    )


def measure_memory(folder: Path) -> Measurement:
    """Weigh a fresh process that preprocesses one raw 1 mm head at the paper preset's grid."""
    bids = phantoms(folder, subjects=1, zooms=1.0)
    (head,) = bids.rglob("*_T1w.nii.gz")
    return Measurement(
        value=peak_mb(head, FINE) / 1000,
        note="Largest resident set, libraries and networks included; a phantom head of 1 mm.",
    )


ROWS = [
    Row(
        name="preprocess-workers",
        what="preprocessing, 2 workers",
        against="1 worker",
        measure=measure_workers,
        target=1.8,
        seconds=240,
    ),
    Row(
        name="preprocess-gpu",
        what="preprocessing, skulls stripped on the GPU",
        against="1 worker on the CPU",
        measure=measure_gpu,
        target=3,
        gpu_only=True,
        seconds=180,
    ),
    Row(
        name="preprocess-head",
        what="preprocessing a raw 1 mm head",
        against="published chain: 96 CPU-s (measured once, not in this run)",
        measure=measure_head,
        target=5,
        unit="CPU-s",
        seconds=90,
    ),
    Row(
        name="preprocess-memory",
        what="memory of a preprocessing worker, raw 1 mm head",
        against="–",
        measure=measure_memory,
        target=2,
        unit="GB",
        seconds=30,
    ),
]
