"""Fit how far the bundled LDAE trusts its denoiser on real people, and write it into its weights.

Training fits it on validation scans of its own store, four fifths of them phantoms. The package is
used on people: here the variance that its modes leave over is that of the people it was trained on,
as large as that of the six held back for validation, on whom trust and gain are fitted.

Run: python -m recipes.bundled_ldae.fit_noise STUDY LDAE OUT
STUDY has data/latents.zarr and data/cohort/manifest.csv of the study on real data.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from pipeline.diffusion.gain_fit import MOST_GAIN, weights_at_nodes
from pipeline.models.artefact import read_artefact
from pipeline.models.bundled_ldae import MAX_BUNDLED_BYTES
from pipeline.models.finished_model import write_bundled
from pipeline.models.frozen import FrozenLdae, load_ldae
from pipeline.nets.gaussian_prior import NODES
from pipeline.stores.latents import open_latents
from pipeline.training.standardisation import shrunk_variance

PEOPLE = Path(__file__).with_name("people.csv")


def main(study: Path, folder: Path, out: Path) -> None:
    """Fit and write."""
    ldae = load_ldae(folder, device=torch.device("cpu"))
    split = pd.read_csv(PEOPLE, dtype=str).set_index("subject_id")["split"]
    manifest = pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype=str)
    latents = open_latents(study / "data" / "latents.zarr")
    known = manifest[manifest["subject_id"].isin(split.index)].drop_duplicates("subject_id")
    known = known[known["scan_id"].isin(latents.row_of)]
    part = known["subject_id"].map(split)
    mean = {
        name: latents.load(list(known["scan_id"][part == name])).mean for name in ("train", "val")
    }
    with torch.no_grad():
        fit(ldae, mean["train"].float(), mean["val"].float())
    artefact = read_artefact(folder, kind="ldae")
    state = ldae.net.state_dict()
    fitted = {name: state[name] for name in ("estimator.gain", "estimator.prior.trust")}
    fitted["estimator.prior.variance"] = state["estimator.prior.variance"].half()
    tensors = artefact.tensors | fitted
    kept = replace(
        artefact, config=artefact.config | {"weights_sha256": artefact.config["float32_sha256"]}
    )
    write_bundled(kept, tensors, out, config={}, most=MAX_BUNDLED_BYTES, card=None)


def fit(ldae: FrozenLdae, train: Tensor, val: Tensor) -> None:
    """Set variance, trust and gain of the LDAE, from posterior means of its own people."""
    net = ldae.net
    estimator, standardise = net.estimator, net.diffusion.standardise
    squares = {}
    for name, mean in (("train", train), ("val", val)):
        z_0 = standardise(mean)
        squares[name] = (z_0 - estimator.mode_latent(net.embed(z_0))).square().mean(0)
    level = squares["val"].mean((1, 2, 3)) / squares["train"].mean((1, 2, 3))
    variance = squares["train"] * level.reshape(-1, 1, 1, 1)
    estimator.prior.variance.copy_(shrunk_variance(variance, len(train)))
    schedule = net.diffusion.schedule
    steps = torch.linspace(0, schedule.num_train_timesteps - 1, NODES).long()

    def weights(pair: Callable[..., tuple[Tensor, Tensor]], most: float) -> Tensor:
        people = [str(n) for n in range(len(val))]
        return weights_at_nodes(_scans(ldae, val), people, schedule, steps, pair, most=most).float()

    def trusted(weight: float, *given: Tensor) -> Tensor:
        estimator.prior.trust.fill_(weight)
        return net.mode_noise(*given)

    trust = weights(lambda *given: (trusted(0, *given), trusted(1, *given)), 1)
    estimator.prior.trust.copy_(trust)
    estimator.gain.fill_(1)
    gain = weights(lambda x, t, y: (net.mode_noise(x, t, y), net.noises(x, t, [y])[0]), MOST_GAIN)
    estimator.gain.copy_(gain)


def _scans(ldae: FrozenLdae, val: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for i, mean in enumerate(val):
        z_0 = ldae.net.diffusion.standardise(mean[None])
        generator = torch.Generator().manual_seed(i)
        yield z_0, ldae.net.embed(z_0), torch.randn(NODES, *mean.shape, generator=generator)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
