"""How loud the learned part of G should be at each timestep, and what that changes.

The learned part of the bundled LDAE is scaled, timestep by timestep, by the gain that fits the
noise of the package's six validation people best; its error and that with gain 1 are then told of
people whom the package never saw, relative to the closed form (modes alone).

Run: python -m benchmarks.studies.stage_2_gain --study STUDY --out benchmarks/results
STUDY holds data/latents.zarr (bundled autoencoder) and data/cohort/manifest.csv of real people.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.autoencoder_by_source import unseen_scans
from benchmarks.studies.label_readouts import CPU, seen
from pipeline.cohort.manifest import read_manifest
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.models.bundled_ldae import bundled_ldae
from pipeline.models.frozen import load_ldae
from pipeline.models.ldae import Ldae
from pipeline.runtime.progress import progress
from pipeline.stores.latents import open_latents

VALIDATION = ("d11x06", "d11x12", "d2748x37", "d2748x44", "d2748x45", "d2748x59")
"""People of the package's validation, by its card."""
JUDGED = 24
NODES = torch.tensor([0.0, 20, 60, *(142 + 71.4 * k for k in range(12)), 999])


class Products(NamedTuple):
    """Sums over people at each timestep."""

    learned_missing: Tensor
    """Learned part times what the closed form misses of the noise."""
    learned: Tensor
    missing: Tensor

    def change(self, gain: Tensor) -> Tensor:
        """Return the error with this gain, relative to that of the closed form, less 1."""
        return (gain**2 * self.learned - 2 * gain * self.learned_missing) / self.missing


@torch.inference_mode()
def products(net: Ldae, latents: Tensor, seed: int) -> Products:
    """Return the sums of latents (B, C, X, Y, Z)."""
    alpha, sigma = (
        x[:, None, None, None, None] for x in alpha_sigma(net.diffusion.schedule.lambda_at(NODES))
    )
    sums = torch.zeros(3, len(NODES))
    for i, z_0 in enumerate(progress(latents, total=len(latents), label="people")):
        generator = torch.Generator().manual_seed(seed + i)
        eps = torch.randn((len(NODES), *z_0.shape), generator=generator)
        x_t = alpha * z_0 + sigma * eps
        y_sem = net.embed(z_0[None]).expand(len(NODES), -1)
        closed = net.mode_noise(x_t, NODES, y_sem)
        learned = (net.noises(x_t, NODES, [y_sem])[0] - closed).flatten(1)
        missing = (eps - closed).flatten(1)
        pairs = ((learned, missing), (learned, learned), (missing, missing))
        sums += torch.stack([(a * b).sum(1) for a, b in pairs])
    return Products(*sums)


def main() -> None:
    """Write stage-2-gain.csv and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    net = load_ldae(bundled_ldae(), device=CPU).net
    store = open_latents(arguments.study / "data" / "latents.zarr")
    manifest = read_manifest(arguments.study / "data" / "cohort" / "manifest.csv")
    manifest = manifest[manifest["scan_id"].isin(store.row_of)].drop_duplicates("subject_id")
    new = unseen_scans(manifest, seen())
    new = new.iloc[np.unique(np.linspace(0, len(new) - 1, JUDGED).astype(int))]
    known = manifest["subject_id"].str.removeprefix("sub-").isin(VALIDATION)
    fit, judged = (
        products(net, net.diffusion.standardise(store.load(scans.tolist()).mean.float()), seed)
        for seed, scans in ((0, manifest.loc[known, "scan_id"]), (1000, new["scan_id"]))
    )
    gain = (fit.learned_missing / fit.learned).clamp(min=0)
    table = pd.DataFrame(
        {
            "timestep": NODES.numpy().round(),
            "gain": gain.numpy(),
            "best gain of those judged": (judged.learned_missing / judged.learned).numpy(),
            "change with gain 1": judged.change(torch.ones_like(gain)).numpy(),
            "change with gain": judged.change(gain).numpy(),
        }
    )
    table.to_csv(arguments.out / "stage-2-gain.csv", index=False, float_format="%.4f")
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
