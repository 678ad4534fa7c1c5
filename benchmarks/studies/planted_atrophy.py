"""Dose and response: atrophy planted in real heads, and what `pipeline regions` measures of it.

The phantom's own deformation (medial temporal lobe and cortex shrink, ventricles widen) is carried
to each head. By default it is planted in the preprocessed volume, so that the measure alone is
judged; with `--raw` in the file, which is then preprocessed anew and laid on the untouched one
halfway, as visits are. `python -m benchmarks.studies.planted_atrophy OUT.csv --volumes
data/volumes.zarr --manifest data/cohort/manifest.csv`.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.imaging.geometry import sample
from pipeline.imaging.halfway import halfway
from pipeline.imaging.preprocess_scan import preprocess_scan
from pipeline.metrics.intervals import mean_interval
from pipeline.phantom.atlas import build_atlas
from pipeline.phantom.planted import PlantedAtrophy
from pipeline.regions.meter import RegionMeter
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from schemas.params import PreprocessParams

CAUSES = ("medial_temporal", "cortex", "ventricle")


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
    parser.add_argument("--own-regions", action="store_true")
    asked = parser.parse_args()
    store = open_volumes(asked.volumes)
    manifest = read_manifest(asked.manifest).drop_duplicates("subject_id")
    manifest = manifest[manifest["scan_id"].isin(store.row_of)]
    chosen = manifest.iloc[np.linspace(0, len(manifest) - 1, asked.heads).astype(int)]
    atlas = build_atlas(zooms=1.0)
    meter = RegionMeter(
        parcellation=desikan_killiany(),
        grid=store.attributes.grid,
        own_regions=asked.own_regions,
    )
    affine, shape = np.asarray(store.attributes.grid.affine), store.attributes.grid.shape
    tables: list[pd.DataFrame] = []
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
                regions = meter.regions_of(before)
                table = meter.change(before, after, regions=regions).table
                held = regions.multiply((before > 0).ravel()[None]).tocsr()
                with np.errstate(invalid="ignore", divide="ignore"):
                    true = (held @ growth.ravel()) / np.asarray(held.sum(axis=1)).ravel()
                by_name = dict(zip(meter.parcellation.names(), true, strict=True))
                table = table[table["kind"] == "atlas"]
                about = {"subject_id": scan["subject_id"], "cause": cause, "amount": amount}
                tables.append(table.assign(true_percent=table["region"].map(by_name), **about))
                pd.concat(tables).to_csv(asked.out, index=False)
                print(cause, amount, len(tables), flush=True)
    judge(pd.concat(tables, ignore_index=True))


def judge(rows: pd.DataFrame) -> None:
    """Print correlation and slope of measured on true change, a head each, with intervals."""
    rows = rows.dropna(subset=["volume_percent", "true_percent"])
    for cause, of_cause in rows.groupby("cause"):
        figures = []
        for subject, own in of_cause.groupby("subject_id"):
            true, measured = own["true_percent"], own["volume_percent"]
            most = [
                len(set(t.nsmallest(3).index) & set(m.nsmallest(3).index)) / 3
                for t, m in (
                    (one["true_percent"], one["volume_percent"]) for _, one in own.groupby("amount")
                )
            ]
            r, slope = np.corrcoef(true, measured)[0, 1], np.polyfit(true, measured, 1)[0]
            figures.append((str(subject), r, slope, float(np.mean(most))))
        people = [figure[0] for figure in figures]
        for place, name in enumerate(("r", "slope", "of the 3 that shrink most"), start=1):
            print(f"{cause}, {name}: {mean_interval([f[place] for f in figures], people)}")


if __name__ == "__main__":
    main()
