"""What y_sem alone gives of unseen people, beside its rivals, and timestep by timestep.

python -m benchmarks.studies.y_sem_alone --study S --ldae S/models/ldae --name real --out OUT

Of test people of a study whom the package's LDAE never saw: SSIM and MSE inside the brain of the
decoded mean training latent, of the projection onto as many principal components of the study's
training latents as y_sem has modes, of y_sem's own projection, of one draw of x_T and of the mean
of eight; and the error of the predicted z_0 over the variance about the mean training latent, of
the denoiser alone, of the closed form and of all that was learned. Writes y-sem-alone-NAME.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.bundled_ldae import DRAWS, PEOPLE
from pipeline.cohort.manifest import read_manifest
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.metrics.intervals import paired_difference
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.inference import LdaeInference, load_models
from pipeline.runtime.progress import progress
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.evaluation import EvaluateParams

TIMESTEPS = 9
PAIRS = [
    (f"{first}_{figure}", f"{second}_{figure}")
    for first, second in (
        ("mean_of_draws", "mean_brain"),
        ("mean_of_draws", "pca"),
        ("projection", "pca"),
    )
    for figure in ("ssim", "mse")
]


class Judge:
    """Judges people of a study one by one."""

    def __init__(self, study: Path, ldae: Path) -> None:
        self.latents = open_latents(study / "data" / "latents.zarr")
        self.volumes = open_volumes(study / "data" / "volumes.zarr")
        self.manifest = read_manifest(study / "data" / "cohort" / "manifest.csv")
        stored = self.manifest["scan_id"].isin(self.latents.row_of)
        self.manifest = self.manifest[stored]
        ae = study / "models" / "ae"
        self.models: LdaeInference = load_models(
            ae if ae.is_dir() else bundled_autoencoder(),
            ldae,
            EvaluateParams(num_inference_steps=20),
            device=torch.device("cpu"),
            store=self.latents,
        )
        train = self.z_0(list(self.manifest["scan_id"][self.manifest["split"] == "train"]))
        self.centre = train.mean(0)
        count = self.models.ldae.config["encoder"]["modes"]
        flat = (train - self.centre).flatten(1)
        self.components = torch.linalg.svd(flat, full_matrices=False)[2][:count]

    def z_0(self, scans: list[str]) -> Tensor:
        """Return standardised latents."""
        return self.models.standardise(self.latents.load(scans).mean)

    def unseen(self, most: int, split: str) -> list[str]:
        """Return a scan each of people of a split, evenly spread over the manifest."""
        seen = set(pd.read_csv(PEOPLE, dtype=str)["subject_id"])
        rows = self.manifest[self.manifest["split"] == split].drop_duplicates("subject_id")
        scans = rows["scan_id"][~rows["subject_id"].isin(seen)].tolist()
        return [scans[i] for i in np.unique(np.linspace(0, len(scans) - 1, most).astype(int))]

    @torch.inference_mode()
    def score(self, scan: str, seed: int) -> dict[str, float]:
        """Return a person's figures."""
        models, z_0 = self.models, self.z_0([scan])
        y_sem = models.embed(z_0)
        deviation = (z_0 - self.centre).flatten(1)
        pca = self.centre + (deviation @ self.components.T @ self.components).reshape(z_0.shape)
        half = torch.randn(
            DRAWS // 2, *z_0.shape[1:], generator=torch.Generator().manual_seed(seed)
        )
        drawn = models.decode(models.sample(y_sem.expand(DRAWS, -1), torch.cat([half, -half])))
        made = {
            "mean_brain": models.decode(self.centre[None])[0],
            "pca": models.decode(pca)[0],
            "projection": models.decode(models.mode_latent(y_sem))[0],
            "one_draw": drawn[0],
            "mean_of_draws": drawn.mean(0),
        }
        truth = self.volumes.load_unit_interval([scan])
        row = {}
        for name, volume in made.items():
            figures = reconstruction_metrics(truth, volume[None, None], truth > 0).iloc[0]
            row |= {f"{name}_ssim": figures["ssim_brain"], f"{name}_mse": figures["mse_brain"]}
        return row | self._errors(z_0, y_sem, seed)

    def _errors(self, z_0: Tensor, y_sem: Tensor, seed: int) -> dict[str, float]:
        net = self.models.ldae.net
        t = torch.linspace(0, net.diffusion.schedule.num_train_timesteps - 1, TIMESTEPS)
        alpha, sigma = (
            x[:, None, None, None, None] for x in alpha_sigma(net.diffusion.schedule.lambda_at(t))
        )
        generator = torch.Generator().manual_seed(seed)
        x_t = alpha * z_0 + sigma * torch.randn(TIMESTEPS, *z_0.shape[1:], generator=generator)
        codes = y_sem.expand(TIMESTEPS, -1)
        noises = {
            "denoiser": net.diffusion.eps(x_t, t),
            "closed_form": net.mode_noise(x_t, t, codes),
            "learned": net.noises(x_t, t, [codes])[0],
        }
        about_mean = (z_0 - self.centre).square().mean()
        return {
            f"{name}_{int(step)}": float(error)
            for name, noise in noises.items()
            for step, error in zip(
                t,
                ((x_t - sigma * noise) / alpha - z_0).square().mean((1, 2, 3, 4)) / about_mean,
                strict=True,
            )
        }


def main() -> None:
    """Write the table and print means and paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--ldae", type=Path, required=True)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--split", default="test", help="val, to choose by")
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    judge = Judge(arguments.study, arguments.ldae)
    scans = judge.unseen(arguments.people, arguments.split)
    bar = progress(scans, total=len(scans), label="people")
    table = pd.DataFrame([judge.score(scan, seed) for seed, scan in enumerate(bar)])
    path = arguments.out / f"y-sem-alone-{arguments.name}.csv"
    table.to_csv(path, index=False, float_format="%.5f")
    print(table.mean().round(4).to_string())
    people = np.arange(len(table))
    for a, b in PAIRS:
        print(a, "-", b, paired_difference(table[a].to_numpy(), table[b].to_numpy(), people))


if __name__ == "__main__":
    main()
