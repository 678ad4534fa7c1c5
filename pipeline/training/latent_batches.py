"""From latents to a step's batch: z_0 of scans, and (x_t, t, eps) of a training step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.ldae import LatentDiffusion
from pipeline.runtime.digests import seed_from
from pipeline.training.standardisation import AnyLatents
from pipeline.training.training_volumes import ScanVolumes
from schemas.diffusion import Posterior


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """A training step's batch; z_0 to eps are of the rows of this process alone."""

    index: Tensor
    """Rows of the whole batch."""
    z_0: Tensor
    x_t: Tensor
    t: Tensor
    eps: Tensor
    generator: torch.Generator
    """For what else is random in the step."""


@dataclass(slots=True)
class LatentData:
    """Latents of each split, and the diffusion process that they are trained in.

    No torch module: nothing in it is averaged, or checkpointed with the trained network.
    """

    diffusion: LatentDiffusion
    latents: dict[str, AnyLatents]
    posterior: Posterior
    volumes: dict[str, ScanVolumes] | None = None
    """For semantic encoders that read volumes."""

    def to(self, device: torch.device) -> None:
        """Bring networks, statistics and latents to the device."""
        self.diffusion.to(device)
        self.latents = {split: latents.to(device) for split, latents in self.latents.items()}

    def training_z_0(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return z_0 of training scans, sampled from their posteriors where params ask for it."""
        if self.posterior != "sample":
            return self.fixed_z_0("train", index)
        return self.widen(self.latents["train"].sample_posterior(index, generator=generator))

    def fixed_z_0(self, split: str, index: Tensor) -> Tensor:
        """Return z_0 of scans, the same at every call; those of training scans are widened.

        The posterior mean; with `stored_draw`, as published, the one sample that each scan has.
        """
        latents = self.latents[split]
        standardise = self.widen if split == "train" else self.diffusion.standardise
        if self.posterior != "stored_draw":
            return standardise(latents.take_mean(index))
        samples = []
        device = self.diffusion.standardise.shift.device
        for row in index.tolist():
            seed = seed_from("stored draw", latents.scan_ids[row])
            generator = torch.Generator(device).manual_seed(seed)
            samples.append(latents.sample_posterior(torch.tensor([row]), generator=generator))
        return standardise(torch.cat(samples))

    def widen(self, latent: Tensor) -> Tensor:
        """Return z_0 of training scans, as far from the mean brain as unseen ones lie.

        Else the denoiser would learn a spread that is too narrow for any other scan.
        """
        z_0: Tensor = self.diffusion.standardise(latent) * self.diffusion.standardise.margin
        return z_0

    def semantic_input(self, split: str, index: Tensor, device: torch.device) -> Tensor:
        """Return the semantic encoder's input for these scans: z_0, or volumes in [0, 1]."""
        if self.volumes is None:
            return self.fixed_z_0(split, index)
        return self.volumes[split].take(index).to(device)
