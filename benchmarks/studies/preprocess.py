"""Preprocessing: time by step, settings against what they cost, memory, two workers against one.

python -m benchmarks.studies.preprocess --heads HEAD… --out benchmarks/results/preprocess-cpu.md

Heads are raw T1w with their skull; the first is used where one will do. `--parts` runs some parts
alone; `repeats`, which takes the heads in pairs of one person, only when named. CPU seconds are of
one thread, so they suffer less from other jobs than wall time does.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
from isal import igzip
from scipy import ndimage

from benchmarks.framework.harness import machine, race, table
from pipeline.imaging.atlas.mni152 import grid_affine, load_template
from pipeline.imaging.bias import correct_bias
from pipeline.imaging.brain import deepbet_mask
from pipeline.imaging.geometry import bounding_box, crop_affine, resample_masked, to_ras
from pipeline.imaging.header import zooms_of
from pipeline.imaging.preprocess_scan import preprocess_scan
from pipeline.imaging.read import read_scan
from pipeline.imaging.register import correlation, overlap, register, template_grid
from pipeline.preprocessing.qc_table import STEPS
from schemas.grid import GridParams
from schemas.params import PreprocessParams

MAX_BYTES = 2_000_000_000
GRIDS = {
    "demo, 3 mm": GridParams(),
    "paper, 1.5 mm": GridParams(shape=(128, 160, 128), zooms=1.5),
}
N4_STEPS = (3.0, 4.0, 6.0, 8.0, 12.0)
ZOOMS = (1.5, 2.0, 3.0, 4.0)
FINE_ZOOMS = 0.7
Brain = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.float64]]


def reading(heads: list[Path]) -> str:
    """Read one gzip through nibabel and through isal."""
    path = max(heads, key=lambda head: head.stat().st_size)

    def voxels() -> object:
        with igzip.open(path, "rb") as file:
            return np.frombuffer(file.read(), dtype=np.uint8)

    timed = race(
        {
            "nibabel, voxels as stored": lambda: nib.load(path).dataobj.get_unscaled(),
            "isal, bytes as stored": voxels,
            "nibabel, float32": lambda: nib.load(path).get_fdata(dtype=np.float32),
            "read_scan: float32, checked, cleaned": lambda: read_scan(path, max_bytes=MAX_BYTES),
        },
        rounds=7,
    )
    megabytes = path.stat().st_size / 1e6
    return table(f"Read a .nii.gz of {nib.load(path).shape} ({megabytes:.1f} MB)", timed)


def steps(heads: list[Path]) -> str:
    """Give the CPU seconds of every step on two grids, median over the heads."""
    lines = [
        f"### CPU seconds a step, median of {len(heads)} raw heads",
        "",
        f"| grid | {' | '.join(STEPS)} | all | wall |",
        "|---|" + "---|" * (len(STEPS) + 2),
    ]
    preprocess_scan(heads[0], PreprocessParams())  # loads the libraries and the template
    for name, grid in GRIDS.items():
        rows, walls = [], []
        for head in heads:
            started = time.perf_counter()
            rows.append(preprocess_scan(head, PreprocessParams(grid=grid)).timings)
            walls.append(time.perf_counter() - started)
        cells = [f"{median(row.get(step, 0) for row in rows):.2f}" for step in STEPS]
        whole = median(sum(row.values()) for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {whole:.1f} | {median(walls):.1f} |")
    return "\n".join(lines) + "\n"


def records(qc_csv: Path) -> str:
    """Give the CPU seconds of every step from the QC table of a run that is done."""
    rows = pd.read_csv(qc_csv)
    columns = [f"{step}_cpu_s" for step in STEPS]
    rows["all"] = rows[columns].sum(axis=1)
    lines = [
        f"### CPU seconds a step in a run over {len(rows)} scans, median",
        "",
        f"| brain mask | scans | {' | '.join(STEPS)} | all |",
        "|---|---|" + "---|" * (len(STEPS) + 1),
    ]
    for method, some in rows.groupby("strip_method"):
        cells = " | ".join(f"{some[column].median():.2f}" for column in columns)
        lines.append(f"| {method} | {len(some)} | {cells} | {some['all'].median():.1f} |")
    return "\n".join(lines) + "\n"


def load_brain(head: Path) -> Brain:
    """Return a head, stripped and cut down to its brain."""
    scan = read_scan(head, max_bytes=MAX_BYTES)
    data, affine = to_ras(scan.data, scan.affine)
    mask = deepbet_mask(data)
    box = bounding_box(mask, np.ceil(4 / zooms_of(affine)).astype(np.int64))
    return np.ascontiguousarray(data[box]), mask[box], crop_affine(affine, box)


def known_field(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a smooth field, about 0.6 to 1.7, such as a receive coil leaves."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    log_field = 0.35 * axes[1] - 0.25 * axes[2] ** 2 + 0.2 * axes[0] * axes[2] + 0.1
    return np.exp(log_field).astype(np.float32)


def bias(heads: list[Path]) -> str:
    """Add a known field to corrected brains and see how much of it each setting leaves."""
    lines = [
        f"### N4 on samples so far apart, median of {len(heads)} raw heads",
        "",
        "Residual: standard deviation, over the brain, of the logarithm of what is left of a known"
        " field.",
        "",
        "| samples mm | CPU-s | residual |",
        "|---|---|---|",
    ]
    rows: dict[float, list[tuple[float, float]]] = {step: [] for step in N4_STEPS}
    before = []
    for head in heads:
        data, mask, affine = load_brain(head)
        clean, _ = correct_bias(data, mask, affine, step=N4_STEPS[1])
        field = known_field(clean.shape)
        before.append(float(np.log(field)[mask].std()))
        for step in N4_STEPS:
            started = time.process_time()
            corrected, _ = correct_bias(clean * field, mask, affine, step=step)
            seconds = time.process_time() - started
            # Against the same correction without the field: what N4 does to a clean brain
            # is no failure to remove the field.
            rest, _ = correct_bias(clean, mask, affine, step=step)
            inside = mask & (rest > 0) & (corrected > 0)
            ratio = np.log(corrected[inside] / rest[inside])
            rows[step].append((seconds, float(ratio.std())))
    lines.append(f"| none | 0 | {median(before):.3f} |")
    for step, pairs in rows.items():
        seconds, residual = (median(values) for values in zip(*pairs, strict=True))
        lines.append(f"| {step:g} | {seconds:.1f} | {residual:.3f} |")
    return "\n".join(lines) + "\n"


def registration(heads: list[Path]) -> str:
    """Estimate the transform by two metrics at several voxel sizes and judge all at 1 mm."""
    fine = template_grid(1.0)
    template, inside = load_template(fine)
    lines = [
        f"### Registration estimated at, median of {len(heads)} raw heads",
        "",
        "NCC: correlation with the template inside its mask, at 1 mm.",
        "",
        "| voxels mm | metric | rigid CPU-s | NCC | affine CPU-s | NCC |",
        "|---|---|---|---|---|---|",
    ]
    brains = [load_brain(head) for head in heads]
    brains = [(correct_bias(d, m, a, step=6.0)[0], m, a) for d, m, a in brains]
    for zooms, metric in itertools.product(ZOOMS, ("mattes", "GC")):
        cells = []
        for kind in ("rigid", "affine"):
            seconds, scores = [], []
            for data, mask, affine in brains:
                started = time.process_time()
                found = register(
                    data, mask, affine, kind=kind, zooms=zooms, search=False, metric=metric
                )
                seconds.append(time.process_time() - started)
                target = np.linalg.inv(found.native_to_mni) @ grid_affine(fine)
                values, _ = resample_masked(data, mask, affine, target, fine.shape)
                scores.append(correlation(values, template, inside))
            cells += [f"{median(seconds):.1f}", f"{median(scores):.3f}"]
        lines.append(f"| {zooms:g} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def repeats(heads: list[Path]) -> str:
    """Give how alike the volumes of two scans of one person are; heads are taken in pairs."""
    lines = [
        f"### Two scans of a person, {len(heads) // 2} people",
        "",
        "| scans | r of the volumes inside the brain | Dice of the masks |",
        "|---|---|---|",
    ]
    for first, second in zip(heads[::2], heads[1::2], strict=True):
        scans = [preprocess_scan(head, PreprocessParams()).volume for head in (first, second)]
        one, other = (scan > 0 for scan in scans)
        alike = correlation(scans[0], scans[1], one | other)
        dice = overlap(one, other, rigid=False)
        lines.append(f"| {first.name}, {second.name} | {alike:.3f} | {dice:.3f} |")
    return "\n".join(lines) + "\n"


def finer(head: Path, out: Path) -> Path:
    """Write a head at FINE_ZOOMS: larger than most scanners give."""
    image = nib.load(head)
    zooms = np.asarray(image.header.get_zooms()[:3], dtype=np.float64)
    factors = zooms / FINE_ZOOMS
    data = ndimage.zoom(image.get_fdata(dtype=np.float32), factors, order=1)
    affine = image.affine @ np.diag([*(np.asarray(image.shape) / data.shape), 1.0])
    nib.save(nib.Nifti1Image(data.astype(np.int16), affine), out)
    return out


def memory(heads: list[Path]) -> str:
    """Peak memory of a fresh process that preprocesses one head."""
    lines = [
        "### Peak memory of a worker (one scan, libraries included)",
        "",
        "| head | grid | peak MB |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        cases = [(head, grid) for head in heads[:2] for grid in GRIDS]
        cases.append((finer(heads[0], Path(name) / f"made {FINE_ZOOMS} mm.nii"), "paper, 1.5 mm"))
        for head, grid in cases:
            shape = "x".join(map(str, nib.load(head).shape))
            lines.append(f"| {shape} | {grid} | {peak_mb(head, grid):.0f} |")
    return "\n".join(lines) + "\n"


def peak_mb(head: Path, grid: str) -> float:
    """Return the largest resident set of a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_weigh, args=(head, grid, send))
    process.start()
    peak: float = receive.recv()
    process.join()
    return peak


def _work_and_weigh(head: Path, grid: str, send: "multiprocessing.connection.Connection") -> None:
    preprocess_scan(head, PreprocessParams(grid=GRIDS[grid]))
    send.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def workers(heads: list[Path]) -> str:
    """Run the command over all heads with one worker and with two."""
    lines = [
        f"### Workers: `pipeline preprocess` over {len(heads)} raw heads, demo grid",
        "",
        "| workers | wall s | cores busy, this and all else | speed |",
        "|---|---|---|---|",
    ]
    base = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"s{i:02d},{head.absolute()}" for i, head in enumerate(heads)]
        (folder / "heads.csv").write_text("\n".join(["subject_id,path", *rows]) + "\n")
        _pipeline("cohort", "--input", folder / "heads.csv", "--out", folder / "cohort")
        for count in (1, 2):
            out = folder / f"v{count}.zarr"
            options = ["--manifest", folder / "cohort/manifest.csv", "--out", out, "--qc"]
            options += [folder / "qc.csv", "--quarantine", folder / "q.csv", "--workers", count]
            started, busy = time.perf_counter(), _busy()
            _pipeline("preprocess", *options)
            wall = time.perf_counter() - started
            cores = (_busy() - busy) / wall
            base = base or wall
            lines.append(f"| {count} | {wall:.0f} | {cores:.2f} | {base / wall:.2f}× |")
    return "\n".join(lines) + "\n"


def _pipeline(*arguments: object) -> None:
    command = [sys.executable, "-m", "stages.cli", *map(str, arguments), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _busy() -> float:
    """Return the CPU seconds of all processors that were not idle."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


PARTS: dict[str, Callable[[list[Path]], str]] = {
    "reading": reading,
    "steps": steps,
    "bias": bias,
    "registration": registration,
    "repeats": repeats,
    "memory": memory,
    "workers": workers,
}


def main() -> None:
    """Run the parts and write what they give, each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "repeats"]
    )
    parser.add_argument("--qc", type=Path, help="QC table of a run, for its time by step")
    parser.add_argument("--note", default="", help="what else the reader should know")
    arguments = parser.parse_args()
    text = f"# Preprocessing\n\n{machine()}. {arguments.note}\n"
    text += "\n" + records(arguments.qc) if arguments.qc else ""
    for name in arguments.parts:
        text += "\n" + PARTS[name](arguments.heads)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
