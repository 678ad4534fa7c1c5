"""Dose and response: atrophy planted in real heads, and what `pipeline regions` measures of it.

The phantom's own deformation (medial temporal lobe and cortex shrink, ventricles widen) is carried
to each head. By default it is planted in the preprocessed volume, so that the measure alone is
judged; with `--raw` in the file, which is then preprocessed anew and laid on the untouched one
halfway, as visits are. Beside the pipeline's measure
stands SyN. `python -m benchmarks.studies.planted_atrophy OUT.csv --volumes data/volumes.zarr
--manifest data/cohort/manifest.csv`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.imaging.brain import brain_of
from pipeline.imaging.deformation.growth import Volume, volume_factor
from pipeline.imaging.deformation.syn import syn_deformation
from pipeline.imaging.deformation.within_person import deformation_between
from pipeline.imaging.geometry import sample
from pipeline.imaging.halfway import halfway
from pipeline.imaging.header import Affine
from pipeline.imaging.preprocess_scan import preprocess_scan
from pipeline.metrics.intervals import mean_interval
from pipeline.phantom.atlas import build_atlas
from pipeline.phantom.planted import PlantedAtrophy
from pipeline.regions.meter import RegionMeter
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from schemas.params import PreprocessParams

CAUSES = ("medial_temporal", "cortex", "ventricle")
MOST = 3
"""Regions, those that truly shrink most, that are looked for among those found to."""
FEWEST_VOXELS = 2
"""Of a region inside the brain."""


def raw_pair(
    store: VolumeStore, row: VolumeRow, path: Path, planted: PlantedAtrophy
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the stored volume and that of the planted file, laid on each other halfway."""
    params = PreprocessParams.model_validate(store.attributes.params["preprocess"])
    image = nib.Nifti1Image.from_filename(path)
    data = image.get_fdata(dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "planted.nii.gz"
        moved = planted.plant(data, np.asarray(image.affine), row.native_to_mni)
        nib.Nifti1Image(moved, image.affine).to_filename(file)
        scan = preprocess_scan(file, params)
    affine, shape = np.asarray(store.attributes.grid.affine), store.attributes.grid.shape
    first, second, _ = halfway(row.native_to_mni, scan.native_to_mni)
    volumes = [v / np.float32(255) for v in (row.volume, scan.volume)]
    before, after = (
        sample(volume.astype(np.float32), affine, way @ affine, shape)
        for volume, way in zip(volumes, (first, second), strict=True)
    )
    return before, after


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--amounts", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--causes", nargs="+", default=list(CAUSES[:2]))
    parser.add_argument("--raw", action="store_true", help="plant before preprocessing")
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=list(MEASURES))
    asked = parser.parse_args()
    store = open_volumes(asked.volumes)
    manifest = read_manifest(asked.manifest).drop_duplicates("subject_id")
    manifest = manifest[manifest["scan_id"].isin(store.row_of)]
    chosen = manifest.iloc[np.linspace(0, len(manifest) - 1, asked.heads).astype(int)]
    atlas = build_atlas(zooms=1.0)
    meter = RegionMeter(parcellation=desikan_killiany(), grid=store.attributes.grid)
    affine, shape = np.asarray(store.attributes.grid.affine), store.attributes.grid.shape
    shares = meter.parcellation.shares_on(shape, affine)
    figures: list[dict[str, Any]] = []
    for amount in asked.amounts:
        for cause in asked.causes:
            planted = PlantedAtrophy.of({cause: amount}, atlas)
            growth = planted.volume_percent(affine, shape)
            for _, scan in chosen.iterrows():
                row = store.read_row(store.row_of[str(scan["scan_id"])])
                before = (row.volume / np.float32(255)).astype(np.float32)
                after = planted.plant(before, affine, np.eye(4))
                if asked.raw:
                    before, after = raw_pair(store, row, Path(scan["path"]), planted)
                about = {"subject_id": scan["subject_id"], "cause": cause, "amount": amount}
                about["planted_in"] = "file" if asked.raw else "volume"
                for measure in asked.measures:
                    began = time.process_time()
                    factor = MEASURES[measure](before, levelled(before, after), affine)
                    seconds = time.process_time() - began
                    own = compared(factor, before, growth, shares)
                    figures.append(about | {"measure": measure} | own | {"cpu_s": seconds})
                pd.DataFrame(figures).round(3).to_csv(asked.out, index=False)
                print(cause, amount, len(figures), flush=True)
    summarise(pd.DataFrame(figures))


def by_syn(before: Volume, after: Volume, affine: Affine) -> Volume:
    """Return the growth by SyN with mean squares."""
    return volume_factor(syn_deformation(before, after, affine, metric="meansquares"), affine)


def by_least_squares(before: Volume, after: Volume, affine: Affine) -> Volume:
    """Return the growth as `pipeline regions` measures it."""
    return volume_factor(deformation_between(before, after, affine), affine)


MEASURES = {"least squares": by_least_squares, "syn": by_syn}


def levelled(before: Volume, after: Volume) -> Volume:
    """Return the later volume at the earlier one's median, as `RegionMeter.change` does."""
    first, last = (np.median(volume[brain_of(volume)]) for volume in (before, after))
    return (after * np.float32(first / last)).astype(np.float32)


def compared(
    factor: Volume, before: Volume, growth: Volume, shares: sparse.csr_array
) -> dict[str, float]:
    """Return how measured and true change (%) of the template's regions go together."""
    brain = brain_of(before)
    held = shares.multiply(brain.ravel()[None]).tocsr()
    voxels = np.asarray(held.sum(axis=1)).ravel()
    known = voxels > FEWEST_VOXELS
    measured = (held @ (100 * (factor - 1)).ravel())[known] / voxels[known]
    true = (held @ growth.ravel())[known] / voxels[known]
    most, found = (set(np.argsort(values)[:MOST].tolist()) for values in (true, measured))
    return {
        "r": float(np.corrcoef(true, measured)[0, 1]),
        "slope": float(np.polyfit(true, measured, 1)[0]),
        "found_of_3": len(most & found),
        "error_percent": float(np.abs(measured - true).mean()),
    }


def summarise(figures: pd.DataFrame) -> None:
    """Print means over heads with intervals."""
    for key, rows in figures.groupby(["planted_in", "measure", "cause", "amount"]):
        for name in ("r", "slope", "found_of_3", "error_percent"):
            print(*key, name, mean_interval(rows[name], rows["subject_id"]))


if __name__ == "__main__":
    main()
