"""Does preprocessing keep the ventricles? Measured on the grid against the truth of phantoms.

python -m benchmarks.ventricles --work FOLDER --out benchmarks/results/ventricles.md

One row a scan and registration is added to FOLDER/ventricles.csv as it is measured; the same
command goes on after a stop. One process, one thread.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.phantom.cohort import make_phantom_cohort
from pipeline.cohort.records import read_table
from pipeline.evaluation.ventricles import brain_median, ventricle_ml
from pipeline.imaging.chain import preprocess_scan
from pipeline.imaging.template import grid_affine
from schemas.params import GridParams, PhantomParams, PreprocessParams

KINDS = ("rigid", "affine", "syn")
GRIDS = {"3 mm": GridParams(), "1.5 mm": GridParams(shape=(128, 160, 128), zooms=1.5)}
COLUMNS = ("scan_id", "kind", "true_ml", "measured_ml", "scaling", "ncc")


def measure(path: Path, kind: str, grid: GridParams) -> dict[str, float]:
    """Return the ventricles on the grid (ml), and how far the affine scaled the brain."""
    params = PreprocessParams.model_validate({"registration": kind, "grid": grid})
    scan = preprocess_scan(path, params)
    volume = scan.volume.astype(np.float32) / 255
    measured = ventricle_ml(volume, grid_affine(grid), median=brain_median(volume))
    return {
        "measured_ml": round(measured, 3),
        "scaling": round(float(scan.qc["scaling"]), 4),
        "ncc": round(float(scan.qc["ncc"]), 4),
    }


def table(rows: pd.DataFrame) -> str:
    """Return r with the true volume for each registration, and how much of the spread is left."""
    lines = [
        "| registration | scans | r, on the grid | r, divided by the scaling | slope | NCC, mean |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        some = rows[rows["kind"] == kind]
        if len(some) < 3:
            continue
        on_grid, native = some["measured_ml"], some["measured_ml"] / some["scaling"]
        r, r_native = (np.corrcoef(some["true_ml"], v)[0, 1] for v in (on_grid, native))
        slope = np.polyfit(some["true_ml"], native, 1)[0]
        lines.append(
            f"| {kind} | {len(some)} | {r:.3f} | {r_native:.3f} | {slope:.2f}"
            f" | {some['ncc'].mean():.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make phantoms, preprocess each three ways, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for phantoms and the CSV")
    parser.add_argument("--out", type=Path, required=True, help="Markdown to write")
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--grid", choices=GRIDS, default="3 mm")
    arguments = parser.parse_args()
    params = PhantomParams(subjects=arguments.subjects, multi_visit_share=0, seed=1)
    root = make_phantom_cohort(arguments.work / "bids", params)
    truth = read_table(root / "derivatives/truth/truth.tsv").set_index("scan_id")
    rows = arguments.work / "ventricles.csv"
    old = pd.read_csv(rows) if rows.is_file() else pd.DataFrame(columns=list(COLUMNS))
    done = set(zip(old["scan_id"], old["kind"], strict=True))
    with rows.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for path in sorted(root.glob("sub-*/**/*_T1w.nii.gz")):
            scan_id = path.name.removesuffix("_T1w.nii.gz")
            true_ml = float(truth.loc[scan_id, "ventricle_mm3"]) / 1000
            for kind in KINDS:
                if (scan_id, kind) in done:
                    continue
                row = {"scan_id": scan_id, "kind": kind, "true_ml": round(true_ml, 3)}
                writer.writerow(row | measure(path, kind, GRIDS[arguments.grid]))
                file.flush()
    text = (
        f"### Ventricles after preprocessing, {arguments.subjects} phantoms, {arguments.grid}\n\n"
    )
    text += table(pd.read_csv(rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
