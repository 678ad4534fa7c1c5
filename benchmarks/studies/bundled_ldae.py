"""Judge the bundled LDAE on people whom neither it nor the bundled autoencoder was trained on.

Run: python -m benchmarks.studies.bundled_ldae --study STUDY --out benchmarks/results
STUDY holds data/volumes.zarr, data/latents.zarr and data/cohort/manifest.csv of real people.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.autoencoder_by_source import trained_scans, unseen_scans
from pipeline.cohort.manifest import read_manifest
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.metrics.intervals import paired_difference
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import bundled_ldae
from pipeline.models.inference import LdaeInference, load_models
from pipeline.runtime.progress import progress
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.evaluation import EvaluateParams

PEOPLE = Path(__file__).parents[2] / "recipes" / "bundled_ldae" / "people.csv"
DRAWS = 8
"""Of x_T, in pairs x_T and -x_T."""
TIMESTEPS = 8
PAIRS = (
    ("mode_projection", "mean_brain"),
    ("y_sem_mean", "mean_brain"),
    ("y_sem_mean", "mode_projection"),
    ("y_sem", "mean_brain"),
    ("y_sem_mean", "other_mean"),
    ("y_sem", "other"),
    ("noise_with_y_sem", "noise_without"),
    ("mode_projection_mse", "mean_brain_mse"),
    ("y_sem_mean_mse", "mean_brain_mse"),
    ("y_sem_mean_mse", "mode_projection_mse"),
    ("y_sem_mean_mse", "other_mean_mse"),
)


@torch.inference_mode()
def volumes_of(
    models: LdaeInference, z_0: Tensor, own: Tensor, other: Tensor, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the volume (X, Y, Z) of each way to reconstruct one scan."""
    centre = models.ldae.net.estimator.centre
    yield "autoencoder", models.decode(z_0)[0]
    yield "mean_brain", models.decode(centre[None])[0]
    yield "mode_projection", models.decode(models.mode_latent(own))[0]
    noise = torch.cat([models.random_noise(seed, "bundled ldae", k) for k in range(DRAWS // 2)])
    noise = torch.cat([noise, -noise])
    for name, y_sem in (("y_sem", own), ("other", other)):
        drawn = models.decode(models.sample(y_sem.expand(DRAWS, -1), noise))
        yield f"{name}_mean", drawn.mean(0)
        yield name, drawn[0]


@torch.inference_mode()
def noise_errors(models: LdaeInference, z_0: Tensor, y_sem: Tensor, seed: int) -> dict[str, float]:
    """Return the mean squared error of the predicted noise with y_sem and without."""
    net = models.ldae.net
    t = torch.linspace(0, 999, TIMESTEPS)
    alpha, sigma = (
        x[:, None, None, None, None] for x in alpha_sigma(net.diffusion.schedule.lambda_at(t))
    )
    z_0 = z_0.expand(TIMESTEPS, -1, -1, -1, -1)
    eps = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(seed))
    x_t = alpha * z_0 + sigma * eps
    guided = net.noises(x_t, t, [y_sem.expand(TIMESTEPS, -1)])[0]
    alone = net.diffusion.eps(x_t, t)
    return {
        "noise_with_y_sem": float((guided - eps).square().mean()),
        "noise_without": float((alone - eps).square().mean()),
    }


def judge(study: Path, most: int) -> pd.DataFrame:
    """Return a row a person: SSIM and MSE in the brain of each way, errors of the noise."""
    latents = open_latents(study / "data" / "latents.zarr")
    volumes = open_volumes(study / "data" / "volumes.zarr")
    params = EvaluateParams(num_inference_steps=10)
    models = load_models(
        bundled_autoencoder(), bundled_ldae(), params, device=torch.device("cpu"), store=latents
    )
    seen = trained_scans() | set(pd.read_csv(PEOPLE)["subject_id"])
    manifest = read_manifest(study / "data" / "cohort" / "manifest.csv")
    unseen = unseen_scans(manifest, seen).drop_duplicates("subject_id")
    unseen = unseen[unseen["scan_id"].isin(latents.row_of)]
    unseen = unseen.iloc[np.unique(np.linspace(0, len(unseen) - 1, most).astype(int))]
    scans = unseen["scan_id"].tolist()
    z_0 = models.standardise(latents.load(scans).mean)
    y_sem = models.embed(z_0)
    rows = []
    for i, scan in enumerate(progress(scans, total=len(scans), label="people")):
        own, other = y_sem[i : i + 1], y_sem[(i + 1) % len(scans)][None]
        truth = volumes.load_unit_interval([scan])[0]
        row = noise_errors(models, z_0[i : i + 1], own, i)
        for name, volume in volumes_of(models, z_0[i : i + 1], own, other, i):
            scored = reconstruction_metrics(truth[None], volume[None, None], truth[None] > 0).iloc[
                0
            ]
            row |= {name: float(scored["ssim_brain"]), f"{name}_mse": float(scored["mse_brain"])}
        rows.append(row)
    return pd.concat(
        [unseen[["scan_id", "source"]].reset_index(drop=True), pd.DataFrame(rows)], axis=1
    )


def main() -> None:
    """Write bundled-ldae.csv and print means and paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=24)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = judge(arguments.study, arguments.people)
    table.to_csv(arguments.out / "bundled-ldae.csv", index=False, float_format="%.5f")
    print(table.mean(numeric_only=True).to_string(float_format="%.3f"))
    people = np.arange(len(table)).astype(str)
    for a, b in PAIRS:
        print(a, "-", b, paired_difference(table[a].to_numpy(), table[b].to_numpy(), people))


if __name__ == "__main__":
    main()
