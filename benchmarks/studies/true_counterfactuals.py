"""Counterfactuals of the bundled LDAE against the true ones of phantoms that it never saw.

Phantoms of a seed of their own, drawn on the bundled grid. Those of FIT are read to learn how y_sem
and latents move with severity; those of JUDGED are moved and compared with the same head at another
severity. `python -m benchmarks.studies.true_counterfactuals OUT.csv --fit 40 --judged 6`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from pipeline.applications.manipulate import manipulate
from pipeline.ground_truth.counterfactuals import NO_CHANGE, score_pair, summarise_pairs
from pipeline.ground_truth.phantom_pairs import true_pair, with_severity
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import find_ldae
from pipeline.models.direction import Direction
from pipeline.models.inference import LdaeInference, load_models
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import make_subject
from pipeline.regions.meter import RegionMeter
from schemas.evaluation import EvaluateParams
from schemas.params import PhantomParams

SEED = 9091
CHANGES = (0.3, 0.6)
ALPHAS = np.logspace(-2, 5, 15)


def severity_step(features: NDArray, severity: NDArray) -> tuple[NDArray, NDArray, float]:
    """Return the ridge direction's step for one unit of severity, and how well it reads severity.

    The step is the probe's weight, as far as the fitting people's positions move with severity.
    """
    mean, std = features.mean(0), features.std(0).clip(1e-6)
    probe = RidgeCV(ALPHAS).fit((features - mean) / std, severity)
    weight = probe.coef_ / np.linalg.norm(probe.coef_)
    position = ((features - mean) / std) @ weight
    rate = np.polyfit(severity, position, 1)[0]
    return rate * weight * std, weight, float(np.corrcoef(position, severity)[0, 1])


def made_by(
    models: LdaeInference, z_0: torch.Tensor, steps: dict[str, NDArray], change: float
) -> dict[str, NDArray[np.float32]]:
    """Return the volume that each method makes of a scan for a change of severity."""
    dim = len(steps["ldae"])
    length = float(np.linalg.norm(steps["ldae"]))
    along = Direction(steps["ldae"] / length, np.zeros(dim), np.ones(dim), length, "severity")
    volumes = {"ldae": manipulate(models, z_0, along, [change]).volumes[0].numpy()}
    for name in ("pca", "latent_shift"):
        moved = z_0 + torch.from_numpy(change * steps[name]).float().reshape(z_0.shape)
        volumes[name] = models.decode(moved)[0].numpy()
    return volumes | {NO_CHANGE: models.decode(z_0)[0].numpy()}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fit", type=int, default=40)
    parser.add_argument("--judged", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--regions", type=int, default=6, help="people measured by region")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    models = load_models(
        bundled_autoencoder(),
        find_ldae(None)[0],
        EvaluateParams(num_inference_steps=asked.steps, other_steps=()),
        device=torch.device("cpu"),
    )
    grid = models.autoencoder.grid
    phantoms = RegisteredPhantoms(grid)
    params = PhantomParams(subjects=asked.fit + asked.judged, seed=SEED)
    people = [make_subject(n + 1, params) for n in range(params.subjects)]
    latents, codes = [], []
    for person in people[: asked.fit]:
        volume = phantoms.draw(with_severity(person, 0.0)) / np.float32(255)
        z_0 = models.encode(torch.from_numpy(volume.astype(np.float32))[None])
        latents.append(z_0.flatten().numpy())
        codes.append(models.embed(z_0)[0].double().numpy())
    severity = np.array([p.atrophy for p in people[: asked.fit]])
    flat = np.stack(latents).astype(np.float64)
    pca = PCA(min(20, asked.fit // 2), random_state=0).fit(flat)
    step, _, reads = severity_step(np.stack(codes), severity)
    pca_step, _, pca_reads = severity_step(pca.transform(flat), severity)
    steps = {
        "ldae": step,
        "pca": pca_step @ pca.components_,
        "latent_shift": np.polynomial.polynomial.polyfit(severity, flat, 1)[1],
    }
    meter = RegionMeter(parcellation=desikan_killiany(), grid=grid, own_regions=False)
    tables = []
    for number, person in enumerate(people[asked.fit :]):
        z_0 = None
        for change in CHANGES:
            pair = true_pair(phantoms, person, change)
            if z_0 is None:
                z_0 = models.encode(torch.from_numpy(pair.own)[None])
            made = made_by(models, z_0, steps, change)
            by_region = meter if number < asked.regions and change == CHANGES[-1] else None
            tables.append(score_pair(models, pair, made, by_region))
            pd.concat(tables).to_csv(asked.out, index=False)
        print(f"{number + 1} of {asked.judged} people", flush=True)
    summary = summarise_pairs(pd.concat(tables, ignore_index=True))
    print(f"severity read in the fitting people: y_sem r {reads:.2f}, PCA r {pca_reads:.2f}")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
