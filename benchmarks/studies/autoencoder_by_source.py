"""The bundled autoencoder on every real scan that it was not trained on, source by source.

python -m benchmarks.studies.autoencoder_by_source --study my-study --out benchmarks/results

Takes the study's manifest (its `site` names the source) and volumes, leaves out every person of
recipes/bundled_ae/scans.csv, judges the rest as `pipeline evaluate --what ae` does, and writes
autoencoder-by-source.md and .csv; without --study, the .md anew from the .csv. A source counts as
trained on if any of its people is in that list, whoever is left of it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.cohort.manifest import read_manifest
from pipeline.evaluation.autoencoder import AutoencoderScorer, evaluate_autoencoder
from pipeline.metrics.intervals import mean_interval
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder, on_grid
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.evaluation import EvaluateParams

TRAINED_ON = Path(__file__).parents[2] / "recipes" / "bundled_ae" / "scans.csv"


def trained_scans(table: Path = TRAINED_ON) -> set[str]:
    """Return the scan ids that the bundled autoencoder saw, in training or validation."""
    return set(pd.read_csv(table, dtype=str)["scan_id"])


def unseen_scans(manifest: pd.DataFrame, seen: set[str]) -> pd.DataFrame:
    """Return the scans of people of whom no scan was seen, with `source` and `trained_on`.

    `source` is the manifest's site; `trained_on` tells whether any person of that source was seen.
    """
    is_seen = manifest["scan_id"].isin(seen) | manifest["subject_id"].isin(seen)
    people = set(manifest.loc[is_seen, "subject_id"])
    sources = set(manifest.loc[is_seen, "site"])
    rest = manifest[~manifest["subject_id"].isin(people)]
    return rest.assign(source=rest["site"], trained_on=rest["site"].isin(sources))


def voxel_edges(volumes: VolumeStore) -> dict[str, float]:
    """Return the longest voxel edge (mm) of each scan's file."""
    edges = [
        float(np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).max())
        for affine in volumes.read("native_affine", slice(None))
    ]
    return dict(zip(volumes.attributes.scan_ids, edges, strict=True))


def judge(unseen: pd.DataFrame, volumes: VolumeStore) -> pd.DataFrame:
    """Return a row a scan: its source, and the figures of `pipeline evaluate --what ae`."""
    device = torch.device("cpu")
    autoencoder = load_autoencoder(bundled_autoencoder(), device=device)
    judged = AutoencoderScorer(
        autoencoder=on_grid(autoencoder, volumes.attributes.grid), volumes=volumes, device=device
    )
    params = EvaluateParams(max_scans=len(unseen))
    with tempfile.TemporaryDirectory() as folder:
        evaluate_autoencoder(judged, unseen, params, Path(folder))
        figures = pd.read_parquet(Path(folder) / "per_scan.parquet")
    edges = pd.Series(voxel_edges(volumes), name="voxel_mm")
    about = unseen[["scan_id", "source", "trained_on", "age_years"]]
    table = about.merge(figures, on="scan_id").join(edges, on="scan_id")
    return table.sort_values(["trained_on", "source", "scan_id"], ignore_index=True)


def cell(rows: pd.DataFrame, column: str, digits: int) -> str:
    """Return the mean over people with its 95 % interval; fewer than five have no interval."""
    found = mean_interval(rows[column].to_numpy(float), rows["subject_id"].to_numpy())
    mean = f"{found.value:.{digits}f}"
    if found.interval is None:
        return mean
    low, high = found.interval
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def table(per_scan: pd.DataFrame) -> str:
    """Return the Markdown table: totals first, then each source, by voxel size where it has two."""
    groups = [
        ("**all sources never trained on**", per_scan[~per_scan["trained_on"]]),
        ("unseen people of sources trained on", per_scan[per_scan["trained_on"]]),
    ]
    for (_, source), rows in per_scan.groupby(["trained_on", "source"], sort=True):
        size = rows["voxel_mm"].round()
        groups += [
            (f"{source}, {edge:g} mm voxels" if size.nunique() > 1 else str(source), part)
            for edge, part in rows.groupby(size)
        ]
    lines = [
        "| source | others of it trained on | people | scans | SSIM in brain | PSNR (dB) |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in groups:
        if rows.empty:
            continue
        trained = "yes" if rows["trained_on"].any() else "no"
        people = rows["subject_id"].nunique()
        ssim, psnr = cell(rows, "ssim_brain", 3), cell(rows, "psnr_brain", 1)
        lines.append(f"| {name} | {trained} | {people} | {len(rows)} | {ssim} | {psnr} |")
    return "\n".join(lines) + "\n"


def written(study: Path, csv: Path) -> pd.DataFrame:
    """Judge the scans of a study, write them to `csv`, and return them."""
    volumes = open_volumes(study / "data" / "volumes.zarr")
    manifest = read_manifest(study / "data" / "cohort" / "manifest.csv")
    per_scan = judge(unseen_scans(manifest, trained_scans()), volumes)
    columns = ["scan_id", "subject_id", "source", "trained_on", "voxel_mm", "age_years"]
    figures = ["ssim_brain", "psnr_brain", "mse_brain", "ssim_whole"]
    per_scan[columns + figures].round(4).to_csv(csv, index=False)
    return per_scan


def main() -> None:
    """Judge, where a study is given, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="with data/volumes.zarr; else the csv is read")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    csv = options.out / "autoencoder-by-source.csv"
    per_scan = written(options.study, csv) if options.study else pd.read_csv(csv)
    text = (
        f"# The bundled autoencoder by source\n\n{per_scan['subject_id'].nunique()} people"
        f" ({len(per_scan)} scans) that it was not trained on, 3 mm, posterior mean decoded."
        " Means over people with 95 % intervals; fewer than five have none.\n\n"
    )
    (options.out / "autoencoder-by-source.md").write_text(text + table(per_scan))
    print(table(per_scan))


if __name__ == "__main__":
    main()
