"""Measure the ventricles in volume stores of phantoms against their true volumes.

Stores come from `pipeline cohort --phantom 24` and `pipeline preprocess`, once with each
`--set preprocess.registration=…`.

python -m benchmarks.ventricles --manifest MANIFEST --stores rigid.zarr affine.zarr syn.zarr
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.manifest import read_manifest
from pipeline.evaluation.ventricles import brain_median, ventricle_ml
from pipeline.stores.volumes import open_volumes


def measure(store_path: Path, truth: pd.DataFrame) -> pd.DataFrame:
    """Return true_ml, grid_ml (as on the grid) and native_ml (divided by the scaling) a scan."""
    store = open_volumes(store_path)
    affine = np.asarray(store.attributes.grid["affine"])
    rows = []
    for row, scan_id in enumerate(store.attributes.scan_ids):
        if scan_id not in truth.index:
            continue
        scan = store.read_row(row)
        volume = scan.volume.astype(np.float32) / 255
        grid_ml = ventricle_ml(volume, affine, median=brain_median(volume))
        scaling = float(np.linalg.det(scan.native_to_mni[:3, :3]))
        true_ml = float(truth.loc[scan_id, "ventricle_mm3"]) / 1000
        rows.append((scan_id, true_ml, grid_ml, grid_ml / scaling))
    return pd.DataFrame(rows, columns=["scan_id", "true_ml", "grid_ml", "native_ml"])


def table(stores: list[Path], truth: pd.DataFrame) -> str:
    """Return a Markdown table: correlation with the truth, and ml measured for a true ml."""
    lines = [
        "| registration | grid mm | scans | r, on the grid | r, in native ml | slope, native |",
        "|---|---|---|---|---|---|",
    ]
    for path in stores:
        params = open_volumes(path).attributes.params["preprocess"]
        some = measure(path, truth)
        r = [np.corrcoef(some["true_ml"], some[name])[0, 1] for name in ("grid_ml", "native_ml")]
        slope = np.polyfit(some["true_ml"], some["native_ml"], 1)[0]
        lines.append(
            f"| {params['registration']} | {params['grid']['zooms']:g} | {len(some)}"
            f" | {r[0]:.3f} | {r[1]:.3f} | {slope:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="with ventricle_mm3")
    parser.add_argument("--stores", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    truth = read_manifest(arguments.manifest).set_index("scan_id")
    print(table(arguments.stores, truth))


if __name__ == "__main__":
    main()
