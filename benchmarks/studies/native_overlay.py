"""How well reconstructions in native space overlay the images that they were made of.

pipeline reconstruct --list heads.txt --space native --ae AE --ldae LDAE --out made
python -m benchmarks.studies.native_overlay --made made --out benchmarks/results/overlay.md

Correlation inside the reconstructed brain, of the file's voxels and at the grid's resolution, as
the command writes both into each JSON, beside that of the preprocessed volume brought back the
same way: what the grid alone can hold.
"""

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from pipeline.applications.inputs import native_space_of, unit_interval
from pipeline.applications.nifti.native_space import (
    brain_of,
    overlay,
    read_native,
    resolution,
    to_native,
)
from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.header import zooms_of
from pipeline.imaging.preprocess_scan import preprocess_scan
from schemas.params import PreprocessParams


def judge(document: Path) -> dict[str, str | float]:
    """Return the figures of one reconstruction."""
    made = json.loads(document.read_text())
    path = Path(made["input"]["path"])
    params = PreprocessParams.model_validate(made["input"]["preprocess"])
    scan = preprocess_scan(path, params)
    volume = unit_interval(scan.volume)
    brain = brain_of(volume, volume > 0)
    output, image = made["outputs"][0], read_native(path)
    native = native_space_of(scan)
    sigma = resolution(params.grid.zooms, native.native_affine)
    written = nib.load(document.parent / output["file"]).get_fdata(dtype=np.float32)
    return {
        "head": made["scan_id"],
        "voxels mm": "×".join(f"{zoom:.2g}" for zoom in zooms_of(nib.load(path).affine)),
        "preprocessed volume": overlay(
            to_native(volume, brain, native, grid_affine(params.grid)), image
        ),
        "reconstruction": overlay(written, image),
        "smoothed": overlay(written, image, sigma),
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--made", type=Path, required=True, help="what `reconstruct` wrote")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    documents = sorted(arguments.made.glob("*_reconstruct_space-native.json"))
    heads = pd.DataFrame([judge(document) for document in documents])
    figures = heads[["preprocessed volume", "reconstruction", "smoothed"]]
    rows = heads.itertuples(index=False)
    lines = [
        f"{len(heads)} raw heads. Reconstruction: median {figures.reconstruction.median():.3f},"
        f" {int((figures.reconstruction >= 0.9).sum())} at .9 or more. Correlation with the raw"
        " file inside the reconstructed brain; smoothed: of both after a Gaussian as wide at half"
        f" its height as the grid's voxels, median {figures.smoothed.median():.3f}, lowest"
        f" {figures.smoothed.min():.3f}.\n",
        "| head | voxels mm | preprocessed volume | reconstruction | smoothed |",
        "|---|---|---|---|---|",
        *(
            f"| {head} | {voxels} | {back:.3f} | {made:.3f} | {smooth:.3f} |"
            for head, voxels, back, made, smooth in rows
        ),
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print(np.round(figures.describe(), 3))


if __name__ == "__main__":
    main()
