"""Measure the lateral ventricles in volume stores against volumes that are known otherwise.

python -m benchmarks.studies.ventricles --of MANIFEST VOLUMES [--of …] [--out FOLDER]

A manifest has `ventricle_mm3` (phantoms of `pipeline cohort --phantom`, whose truth is known) or
`lateral_ventricles_ml` and `volumes_by` (real people: labels by hand, or another program's). Prints
a row a store and reference; --out writes it to ventricles.md, and all scans to ventricles.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.ventricles import native_ml, ventricle_ml
from pipeline.stores.volumes import open_volumes


def references(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return scan_id (the index), subject_id, reference and true_ml of scans that have a truth."""
    table = manifest.set_index("scan_id")
    if "ventricle_mm3" in table:
        known = table.assign(true_ml=table["ventricle_mm3"].astype(float) / 1000)
        known["reference"] = "phantom"
    else:
        known = table.assign(true_ml=table["lateral_ventricles_ml"].astype(float))
        known["reference"] = table["volumes_by"]
    return known.loc[known["true_ml"].notna(), ["subject_id", "reference", "true_ml"]]


def measure(store_path: Path, known: pd.DataFrame) -> pd.DataFrame:
    """Return the known scans of a store with grid_ml (template space) and native_ml."""
    store = open_volumes(store_path)
    affine = np.asarray(store.attributes.grid.affine)
    params = store.attributes.params["preprocess"]
    about = {"registration": params["registration"], "grid_mm": params["grid"]["zooms"]}
    rows = []
    for scan_id in [s for s in store.attributes.scan_ids if s in known.index]:
        scan = store.read_row(store.row_of[scan_id])
        on_grid = ventricle_ml(scan.volume.astype(np.float32) / 255, affine)
        own = native_ml(on_grid, scan.native_to_mni)
        measured = {"scan_id": scan_id, "grid_ml": on_grid, "native_ml": own}
        rows.append(about | dict(known.loc[scan_id]) | measured)
    return pd.DataFrame(rows)


def table(measured: pd.DataFrame) -> str:
    """Return a Markdown table: a row a registration, grid and reference."""
    lines = [
        "| registration | grid mm | reference | people | scans | ml | r, on the grid"
        " | r, native ml | slope | at 0 ml | median error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (registration, zooms, reference), rows in measured.groupby(
        ["registration", "grid_mm", "reference"], sort=True
    ):
        true, own = rows["true_ml"].to_numpy(float), rows["native_ml"].to_numpy(float)
        on_grid = np.corrcoef(true, rows["grid_ml"].to_numpy(float))[0, 1]
        slope, start = np.polyfit(true, own, 1)
        error = np.median(np.abs(own - true) / true)
        lines.append(
            f"| {registration} | {zooms:g} | {reference} | {rows['subject_id'].nunique()}"
            f" | {len(rows)} | {true.min():.0f} to {true.max():.0f} | {on_grid:.3f}"
            f" | {np.corrcoef(true, own)[0, 1]:.3f} | {slope:.2f} | {start:+.1f}"
            f" | {100 * error:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", type=Path, nargs=2, action="append", required=True)
    parser.add_argument("--out", type=Path, help="folder of ventricles.md and ventricles.csv")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    measured = pd.concat(
        [measure(store, references(read_manifest(manifest))) for manifest, store in arguments.of],
        ignore_index=True,
    )
    print(table(measured))
    if arguments.out:
        (arguments.out / "ventricles.md").write_text("# Ventricles\n\n" + table(measured))
        measured.round(2).to_csv(arguments.out / "ventricles.csv", index=False)


if __name__ == "__main__":
    main()
