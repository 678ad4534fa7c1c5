"""What other objectives than stage 2's give the network's part of y_sem.

For each fifth of the people the semantic encoder is trained on the others by the objective, with no
label; then the people left out are embedded. Copies are `augment`ed volumes, encoded anew.

- untrained: random weights.
- contrastive: InfoNCE of two of a person's scan and copies against other people's, with the
  variance and covariance terms of VICReg in place of the batch norm.
- masked: the same, each input with random cubes of 2 x 2 x 2 latent voxels set to the mean latent.

Run: python -m benchmarks.studies.objectives --study STUDY --out benchmarks/results [--steps 200]
STUDY holds data/volumes.zarr, data/latents.zarr (bundled autoencoder) and data/cohort/manifest.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from torch import Tensor

from benchmarks.studies.label_readouts import ALPHAS, CPU, NUMBERS, Floats
from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.augment import augment
from pipeline.metrics.identification import cosine_distances, match_rank
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import bundled_ldae
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.nets.semantic import LatentEncoder
from pipeline.runtime.digests import seed_from
from pipeline.runtime.progress import progress
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes

COPIES, STRENGTH = 4, 0.5
"""The last copy of a person is never trained on: it is looked for among all others'."""
FOLDS, BATCH, DIM = 5, 32, 112
TEMPERATURE, VARIANCE, COVARIANCE = 0.1, 1.0, 0.04
MASKED = 0.3
"""Share of cubes that are masked."""
OBJECTIVES = ("untrained", "contrastive", "masked")


@torch.inference_mode()
def views(volumes: Tensor, people: list[str]) -> Tensor:
    """Return latents (person, 1 + COPIES, C, x, y, z) of scans and of changed copies."""
    net = load_autoencoder(bundled_autoencoder(), device=CPU).net
    latents = []
    for volume, person in zip(
        progress(volumes, total=len(people), label="copies"), people, strict=True
    ):
        generator = torch.Generator().manual_seed(seed_from("view", person))
        copies = augment(volume.expand(COPIES, -1, -1, -1, -1), 1.0, generator, strength=STRENGTH)
        latents.append(torch.cat([net.encode(v[None])[0] for v in (volume, *copies)]))
    return torch.stack(latents)


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """Return InfoNCE of two views (person, dim), with VICReg's variance and covariance terms."""
    a, b = F.normalize(one, dim=1), F.normalize(other, dim=1)
    logits, own = a @ b.T / TEMPERATURE, torch.arange(len(a))
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    for view in (one, other):
        centred = view - view.mean(0)
        covariance = centred.T @ centred / (len(view) - 1)
        rest = covariance - torch.diag(covariance.diag())
        loss = loss + VARIANCE * F.relu(1 - (covariance.diag() + 1e-4).sqrt()).mean()
        loss = loss + COVARIANCE * rest.square().sum() / view.shape[1]
    return loss


def masked(deviations: Tensor, generator: torch.Generator) -> Tensor:
    """Return deviations with a share of their cubes at 0, which is the mean latent."""
    coarse = [len(deviations), 1, *(n // 2 for n in deviations.shape[2:])]
    kept = (torch.rand(coarse, generator=generator) >= MASKED).float()
    return deviations * F.interpolate(kept, scale_factor=2)


def trained_encoder(deviations: Tensor, objective: str, steps: int, seed: int) -> LatentEncoder:
    """Return an encoder trained on people's views (person, view, C, x, y, z)."""
    torch.manual_seed(seed)
    grid = tuple(deviations.shape[3:])
    encoder = LatentEncoder(
        in_channels=deviations.shape[2],
        grid=grid,
        channels=(32, 64, 128),
        dim=DIM,
        num_heads=4,
    )
    if objective == "untrained":
        return encoder.eval()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps)
    size = min(BATCH, len(deviations))
    for _ in progress(range(steps), total=steps, label=objective):
        rows = torch.randperm(len(deviations), generator=generator)[:size]
        picked = torch.rand(size, COPIES, generator=generator).argsort(1)[:, :2].T
        batch = torch.cat([deviations[rows, view] for view in picked])
        if objective == "masked":
            batch = masked(batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            one, other = encoder.summarise(batch).float().chunk(2)
        optimizer.zero_grad()
        contrast(one, other).backward()
        optimizer.step()
        schedule.step()
    return encoder.eval()


def read(codes: Floats, fit: Floats, new: Floats, y: Floats) -> Floats:
    """Return ridge regression's predictions for `new` people, fitted on the people `fit`."""
    fit = fit[np.isfinite(y[fit])]
    mean, spread = codes[fit].mean(0), codes[fit].std(0) + 1e-9
    x = (codes - mean) / spread
    layer = RidgeCV(ALPHAS * x.shape[1]).fit(x[fit], y[fit])
    predicted: Floats = layer.predict(x[new])
    return predicted


def judge(people: pd.DataFrame, deviations: Tensor, objective: str, steps: int) -> dict[str, float]:
    """Return what codes of unseen people say of them, and how often their copy is found."""
    labels = {"male": np.where(people["sex"] == "M", 1.0, -1.0)}
    for name, (column, transform) in NUMBERS.items():
        values = pd.to_numeric(people[column], errors="coerce").to_numpy(dtype=float)
        labels[name] = values if transform is None else transform(values)
    predicted = {name: np.full(len(people), np.nan) for name in labels}
    ranks = []
    folds = KFold(FOLDS, shuffle=True, random_state=0).split(people)
    for seed, (fit, new) in enumerate(folds):
        encoder = trained_encoder(deviations[fit][:, :COPIES], objective, steps, seed)
        with torch.inference_mode():
            scans = torch.cat([encoder.summarise(part) for part in deviations[:, 0].split(16)])
            copies = torch.cat([encoder.summarise(part) for part in deviations[new, -1].split(16)])
        codes = scans.double().numpy()
        for name, y in labels.items():
            predicted[name][new] = read(codes, fit, new, y)
        mean = codes[fit].mean(0)
        to_others, to_match = cosine_distances(codes[new] - mean, copies.double().numpy() - mean)
        ranks += [match_rank(np.delete(row, i), to_match[i]) for i, row in enumerate(to_others)]
    figures = {"sex_auc": float(roc_auc_score(labels["male"], predicted["male"]))}
    for name in NUMBERS:
        has = np.isfinite(labels[name])
        a, b = labels[name][has], predicted[name][has]
        figures[f"{name}_r"] = float(np.corrcoef(a, b)[0, 1])
        figures[f"{name}_mae"] = float(np.abs(a - b).mean())
    return figures | {"copy_found_first": float(np.mean(np.asarray(ranks) == 1))}


def main() -> None:
    """Write objectives.csv and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", choices=OBJECTIVES, nargs="+", default=OBJECTIVES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    latents = open_latents(arguments.study / "data" / "latents.zarr")
    volumes = open_volumes(arguments.study / "data" / "volumes.zarr")
    people = read_manifest(arguments.study / "data" / "cohort" / "manifest.csv")
    people = people[people["scan_id"].isin(latents.row_of)].drop_duplicates("subject_id")
    ids = people["scan_id"].tolist()
    seen = views(volumes.load_unit_interval(ids), ids)
    encoder = load_ldae(bundled_ldae(), device=CPU).net.encoder
    mean = encoder.tissue.mean_latent
    deviations = (seen - mean) / encoder.tissue.unit
    rows = [
        {"objective": name, "steps": 0 if name == "untrained" else arguments.steps}
        | judge(people, deviations, name, arguments.steps)
        for name in arguments.only
    ]
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out / "objectives.csv", index=False, float_format="%.3f")
    print(table.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
