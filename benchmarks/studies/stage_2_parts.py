"""What each part of stage 2 adds: error of the predicted noise of people outside its training.

The denoiser is that of the package, frozen. Each variant trains for the same number of steps:

- `network`: the encoder alone, without modes (all of y_sem is the network's).
- `own modes`: modes of these people, with tissue and network; before training they are the closed
  form, exact in the subspace of the modes.
- `own modes, varying`: the loss only where people vary (latent voxels whose standard deviation is
  above a twentieth of their channel's).
- `package`: from the weights of the package, whose modes are of phantoms and other people.

Run: python -m benchmarks.studies.stage_2_parts --study STUDY --out benchmarks/results [--unseen]
STUDY holds data/latents.zarr and data/cohort/manifest.csv. With `--unseen` the judged people are
24 whom the package never saw, and all others train; without it, the study's splits are taken.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.autoencoder_by_source import unseen_scans
from benchmarks.studies.label_readouts import CPU, seen
from pipeline.cohort.manifest import read_manifest
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.metrics.intervals import paired_difference
from pipeline.models.bundled_ldae import load_start, load_start_of_stage_1
from pipeline.models.frozen import load_ldae
from pipeline.models.ldae import Ldae
from pipeline.runtime.progress import progress
from pipeline.stores.latents import LatentStore, open_latents
from pipeline.training import latent_diffusion, latent_modules
from pipeline.training.latent_modules import SemanticModule
from schemas.diffusion import LdaeParams

JUDGED = 24
TIMESTEPS = (0, 142, 285, 428, 571, 714, 857, 999)
FLAT = 0.05
"""Share of a channel's standard deviation below which a latent voxel does not vary."""
NONE = {"modes": 0, "tissue_modes": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "network": {"encoder": NONE},
    "own modes": {},
    "own modes, varying": {},
    "package": {"start_from": "bundled"},
}


class VaryingModule(SemanticModule):
    """Stage 2 with a loss where people vary alone."""

    def _loss(self, predicted: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        spread = 1 / self.diffusion.standardise.scale.to(eps)
        varies = (spread > FLAT * spread.amax(dim=(1, 2, 3), keepdim=True)).to(eps)
        return super()._loss(predicted * varies, t, eps * varies) / varies.mean()


def split_of(manifest: pd.DataFrame, *, unseen: bool) -> dict[str, list[str]]:
    """Return the scans that train, that validate, and that are judged: one a person."""
    if not unseen:
        judged = manifest[manifest["split"] == "test"].drop_duplicates("subject_id").head(JUDGED)
        parts = {
            s: manifest.loc[manifest["split"] == s, "scan_id"].tolist() for s in ("train", "val")
        }
        return parts | {"judged": judged["scan_id"].tolist()}
    new = unseen_scans(manifest, seen()).drop_duplicates("subject_id")
    judged = new.iloc[np.unique(np.linspace(0, len(new) - 1, JUDGED).astype(int))]
    rest = manifest[~manifest["subject_id"].isin(judged["subject_id"])]
    val = rest.drop_duplicates("subject_id")["subject_id"].iloc[::10]
    return {
        "train": rest.loc[~rest["subject_id"].isin(val), "scan_id"].tolist(),
        "val": rest.loc[rest["subject_id"].isin(val), "scan_id"].tolist(),
        "judged": judged["scan_id"].tolist(),
    }


def train(
    name: str, store: LatentStore, split: dict[str, list[str]], steps: int, work: Path
) -> Ldae:
    """Return the variant's LDAE after stage 2."""
    encoder = {"channels": (32, 64, 128), "modes": 80, "tissue_modes": 64}
    variant = VARIANTS[name]
    asked = {"encoder": encoder | variant.get("encoder", {}), "steps": steps, "lr": 3e-4}
    params = LdaeParams.model_validate(asked | {"checkpoint_every": steps, "patience": 0})
    former = latent_modules.SemanticModule
    if "varying" in name:
        latent_modules.SemanticModule = VaryingModule  # type: ignore[misc]
    try:
        latent_diffusion.train_ldae(
            store,
            {part: split[part] for part in ("train", "val")},
            load_start_of_stage_1("bundled"),
            params,
            work / name,
            device=CPU,
            start=load_start("bundled") if "start_from" in variant else None,
        )
    finally:
        latent_modules.SemanticModule = former  # type: ignore[misc]
    return load_ldae(work / name, device=CPU).net


@torch.inference_mode()
def errors(net: Ldae, name: str, z_0: Tensor) -> Iterator[dict[str, Any]]:
    """Yield mean squared errors of the noise of each latent at each timestep, the same noise."""
    codes = torch.cat([net.encoder(z[None]) for z in z_0])
    t = torch.tensor(TIMESTEPS, dtype=torch.float32)
    alpha, sigma = (
        x[:, None, None, None, None] for x in alpha_sigma(net.diffusion.schedule.lambda_at(t))
    )
    for i, z in enumerate(progress(z_0, total=len(z_0), label=name)):
        eps = torch.randn((len(t), *z.shape), generator=torch.Generator().manual_seed(i))
        x_t = alpha * z + sigma * eps
        own, other = (codes[j % len(codes)].expand(len(t), -1) for j in (i, i + 1))
        guided, others = net.noises(x_t, t, [own, other])
        ways = {name: guided, f"{name}, another's y_sem": others}
        if net.estimator.modes is not None:
            ways[f"{name}, before training"] = net.mode_noise(x_t, t, own)
        if name == next(iter(VARIANTS)):
            ways["denoiser alone"] = net.diffusion.eps(x_t, t)
        for way, noise in ways.items():
            squares = (noise - eps).square().mean(dim=(1, 2, 3, 4)).tolist()
            yield from (
                {"person": i, "way": way, "timestep": at, "error": square}
                for at, square in zip(TIMESTEPS, squares, strict=True)
            )


def main() -> None:
    """Write stage-2-parts-STUDY.csv and print means and paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    store = open_latents(arguments.study / "data" / "latents.zarr")
    manifest = read_manifest(arguments.study / "data" / "cohort" / "manifest.csv")
    split = split_of(manifest[manifest["scan_id"].isin(store.row_of)], unseen=arguments.unseen)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for name in VARIANTS:
            net = train(name, store, split, arguments.steps, Path(work))
            z_0 = net.diffusion.standardise(store.load(split["judged"]).mean.float())
            rows += errors(net, name, z_0)
    table = pd.DataFrame(rows)
    name = f"stage-2-parts-{'real' if arguments.unseen else 'phantoms'}.csv"
    table.to_csv(arguments.out / name, index=False, float_format="%.5f")
    wide = table.pivot_table(index="person", columns="way", values="error")
    without, people = wide["denoiser alone"].to_numpy(), wide.index.astype(str).to_numpy()
    for way in wide.columns:
        print(f"{way:40} {wide[way].mean():.4f}", end=" ")
        print(paired_difference(wide[way].to_numpy() / without, np.ones(len(wide)), people))
    print(table.pivot_table(index="way", columns="timestep", values="error").to_string())


if __name__ == "__main__":
    main()
