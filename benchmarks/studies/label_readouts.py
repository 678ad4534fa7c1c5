"""What ridge regression reads of people from latents, voxels and tissue fractions.

Five folds of people, three partitions, whatever is fitted, fitted in the fold; classes as ±1.

Run: python -m benchmarks.studies.label_readouts --study STUDY --out benchmarks/results
STUDY holds data/volumes.zarr, data/latents.zarr (bundled autoencoder) and data/cohort/manifest.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from benchmarks.studies.autoencoder_by_source import trained_scans, unseen_scans
from benchmarks.studies.bundled_ldae import PEOPLE
from pipeline.cohort.manifest import read_manifest
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import bundled_ldae
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.nets.tissue import tissue_fractions
from pipeline.runtime.progress import progress
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes

Floats = NDArray[np.float64]
CPU = torch.device("cpu")
ALPHAS = np.logspace(-4, 3, 22)
"""Penalties, as shares of the features' total variance."""
FOLDS, PARTITIONS = 5, 3
AIR = 0.02
"""Decoded intensity below which a voxel is air."""
NUMBERS = {
    "age": ("age_years", None),
    "log_ventricles": ("lateral_ventricles_ml", np.log),
    "hippocampi": ("hippocampi_ml", None),
}


def scores(features: Tensor) -> Floats:
    """Return features (person, dim) turned onto the axes that the people span: an isometry."""
    flat = features.flatten(1).double().numpy()
    left, size, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return np.asarray(left * size)


def predict(x: Floats, y: Floats, seed: int, *, classes: bool) -> Floats:
    """Return out-of-fold predictions of ridge regression on features as they are."""
    splitter = StratifiedKFold if classes else KFold
    predicted = np.empty(len(y))
    for fit, new in splitter(FOLDS, shuffle=True, random_state=seed).split(x, y):
        mean, total = x[fit].mean(0), x[fit].var(0).sum()
        layer = RidgeCV(ALPHAS * total).fit(x[fit] - mean, y[fit])
        predicted[new] = layer.predict(x[new] - mean)
    return predicted


def read_labels(people: pd.DataFrame, features: Tensor) -> dict[str, float]:
    """Return figures of every label, means over partitions."""
    x, figures = scores(features), {}
    for name, (column, transform) in NUMBERS.items():
        y = pd.to_numeric(people[column], errors="coerce").to_numpy(dtype=float)
        y = y if transform is None else transform(y)
        has = np.isfinite(y)
        both = [(predict(x[has], y[has], k, classes=False), y[has]) for k in range(PARTITIONS)]
        figures[f"{name}_r"] = float(np.mean([np.corrcoef(*pair)[0, 1] for pair in both]))
        figures[f"{name}_mae"] = float(np.mean([np.abs(a - b).mean() for a, b in both]))
    male = np.where(people["sex"] == "M", 1.0, -1.0)
    aucs = [roc_auc_score(male, predict(x, male, k, classes=True)) for k in range(PARTITIONS)]
    return figures | {"sex_auc": float(np.mean(aucs))}


@torch.inference_mode()
def all_features(volumes: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Return the feature sets of people: volumes (person, 1, X, Y, Z) in [0, 1], latents."""
    autoencoder = load_autoencoder(bundled_autoencoder(), device=CPU)
    decoded = torch.cat(
        [
            autoencoder.net.decode(z[None])
            for z in progress(latents, total=len(latents), label="decode")
        ]
    )
    tissue = load_ldae(bundled_ldae(), device=CPU).net.encoder.tissue
    read = torch.cat([tissue.net(z[None]) for z in latents])
    amounts = (read - tissue.centre).flatten(1) @ tissue.modes.modes.flatten(1).T
    return {
        "latents": latents,
        "voxels, 6 mm": F.avg_pool3d(volumes, 2),
        "tissue of volumes, 12 mm": tissue_fractions(volumes, 4),
        "tissue of volumes, 9 mm": tissue_fractions(volumes, 3),
        "tissue of decoded latents": tissue_fractions(decoded * (decoded > AIR), 4),
        "tissue read from latents": read,
        "modes of tissue of the bundled LDAE": amounts,
        "the same, standardised": amounts / tissue.modes.spread,
    }


def seen() -> set[str]:
    """Return the people that the bundled models were trained on."""
    return trained_scans() | set(pd.read_csv(PEOPLE)["subject_id"])


def explained(truth: Tensor, guess: Tensor) -> float:
    """Return the share of the variance of fractions about their mean that a guess explains."""
    deviation = truth - truth.mean(0)
    rest = (guess - guess.mean(0)) - deviation
    return float(1 - rest.square().sum() / deviation.square().sum())


def main() -> None:
    """Write label-readouts.csv and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    latents = open_latents(arguments.study / "data" / "latents.zarr")
    volumes = open_volumes(arguments.study / "data" / "volumes.zarr")
    people = read_manifest(arguments.study / "data" / "cohort" / "manifest.csv")
    people = people[people["scan_id"].isin(latents.row_of)].drop_duplicates("subject_id")
    ids = people["scan_id"].tolist()
    sets = all_features(volumes.load_unit_interval(ids), latents.load(ids).mean.float())
    rows = [{"features": name} | read_labels(people, values) for name, values in sets.items()]
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out / "label-readouts.csv", index=False, float_format="%.3f")
    new = torch.tensor([i in set(unseen_scans(people, seen())["scan_id"]) for i in ids])
    truth = sets["tissue of volumes, 12 mm"][new]
    for name in ("tissue of decoded latents", "tissue read from latents"):
        print(
            f"{name}: explains {explained(truth, sets[name][new]):.3f} of {int(new.sum())} people"
        )
    print(table.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
