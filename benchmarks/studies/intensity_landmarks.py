"""What moving grey and white matter to fixed levels changes: scanners, labels, reconstruction.

The volumes of a study made with `intensity: percentiles` are encoded by the bundled autoencoder and
embedded by the bundled LDAE as they are, and once more after `landmarks.standardise`, which is what
`preprocess.intensity: landmarks` does before levels are rounded.

Run: python -m benchmarks.studies.intensity_landmarks --phantoms STUDY --real STUDY --out DIR
Each STUDY holds data/volumes.zarr and data/cohort/manifest.csv; people of the first travelled.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict

from benchmarks.studies.label_readouts import CPU, Floats
from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.intensities import standardise, tissue_levels
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.metrics.variance_components import variance_components
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import bundled_ldae
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeStore, open_volumes

WAYS = ("percentiles", "landmarks")
ALPHAS = np.logspace(-2, 4, 13)
REPEATS = 3
"""Of the cross-validation in five folds."""


def unit_volume(store: VolumeStore, scan: str, way: str) -> NDArray[np.float32]:
    """Return a volume (X, Y, Z) in [0, 1] as preprocessing of this way makes it."""
    volume = store.read_row(store.row_of[scan]).volume
    inside = volume > 0
    levels = np.where(inside, (volume - 1.0) / 254, 0)
    if way == "landmarks":
        own = tissue_levels(levels, inside, np.asarray(store.attributes.grid.affine))
        levels = levels if own is None else standardise(levels, own)
    return np.where(inside, (1 + np.rint(254 * levels)) / 255, 0).astype(np.float32)


@torch.inference_mode()
def embed(store: VolumeStore, scans: list[str], way: str) -> tuple[Floats, Floats]:
    """Return y_sem (scan, dim) and the SSIM of each scan's reconstruction inside the brain."""
    autoencoder = load_autoencoder(bundled_autoencoder(), device=CPU).net
    net = load_ldae(bundled_ldae(), device=CPU).net
    codes, ssim = [], []
    for scan in progress(scans, total=len(scans), label=way):
        volume = torch.from_numpy(unit_volume(store, scan, way))[None, None]
        latent = autoencoder.encode(volume)[0]
        codes.append(net.embed(net.diffusion.standardise(latent))[0].numpy())
        decoded = autoencoder.decode(latent).clamp(0, 1)
        scores = reconstruction_metrics(volume, decoded, volume > 0).iloc[0]
        ssim.append(float(scores["ssim_brain"]))
    return np.stack(codes), np.array(ssim)


def travelling(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the first visits of people who were on several scanners."""
    first = manifest[manifest["months_from_first"] == 0]
    return first[first.groupby("subject_id")["site"].transform("nunique") > 1]


def found_first(codes: Floats, people: NDArray[np.str_]) -> float:
    """Return for what share of scans the nearest other scan, by cosine, is the same person's."""
    centred = codes - codes.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    alike = centred @ centred.T
    np.fill_diagonal(alike, -np.inf)
    return float((people[alike.argmax(axis=1)] == people).mean())


def readings(codes: Floats, table: pd.DataFrame) -> dict[str, float]:
    """Return what ridge regression reads of people outside its folds, mean over repeats."""
    features = codes / codes.std()
    fluid = np.log(table["lateral_ventricles_ml"].to_numpy())
    known = np.isfinite(fluid)
    male = (table["sex"] == "M").to_numpy()
    rows = []
    for seed in range(REPEATS):
        folds = KFold(5, shuffle=True, random_state=seed)
        age, sex = (
            cross_val_predict(RidgeCV(ALPHAS), features, target, cv=folds)
            for target in (table["age_years"], male.astype(float))
        )
        ml = cross_val_predict(RidgeCV(ALPHAS), features[known], fluid[known], cv=folds)
        rows.append(
            {
                "age, MAE (years)": np.abs(age - table["age_years"]).mean(),
                "sex, ROC-AUC": roc_auc_score(male, sex),
                "log ventricles, r": np.corrcoef(ml, fluid[known])[0, 1],
            }
        )
    return {str(name): float(value) for name, value in pd.DataFrame(rows).mean().items()}


def main() -> None:
    """Write intensity-landmarks.csv and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, float]] = {}
    for way in WAYS:
        store = open_volumes(arguments.phantoms / "data" / "volumes.zarr")
        table = travelling(read_manifest(arguments.phantoms / "data" / "cohort" / "manifest.csv"))
        table = table[table["scan_id"].isin(store.row_of)]
        codes, _ = embed(store, table["scan_id"].tolist(), way)
        row = {"found on another scanner": found_first(codes, table["subject_id"].to_numpy(str))}
        person, site = (table[name].to_numpy(dtype=str) for name in ("subject_id", "site"))
        shares = variance_components(codes, person=person, visit=person, site=site).shares
        row |= {f"share of {part}": share for part, share in shares.items()}
        store = open_volumes(arguments.real / "data" / "volumes.zarr")
        table = read_manifest(arguments.real / "data" / "cohort" / "manifest.csv")
        table = table[table["scan_id"].isin(store.row_of)].drop_duplicates("subject_id")
        codes, ssim = embed(store, table["scan_id"].tolist(), way)
        figures[way] = row | readings(codes, table) | {"SSIM of the autoencoder": ssim.mean()}
    written = pd.DataFrame(figures)
    written.to_csv(arguments.out / "intensity-landmarks.csv", float_format="%.3f")
    print(written.round(3).to_string())


if __name__ == "__main__":
    main()
