"""Perceptual and patch-adversarial terms of the autoencoder's loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from pipeline.nets.lpips import Lpips, plane_slices
from schemas.autoencoder import AdversarialParams

Volumes = Float[Tensor, "B 1 X Y Z"]


@dataclass(frozen=True, slots=True)
class PerceptualLoss:
    """Mean LPIPS of randomly picked slices, over the three planes.

    No torch module: its network is fixed, so neither averaged nor checkpointed with the trained.
    """

    lpips: Lpips
    share: float
    """Share of a plane's slices that are picked."""

    def to(self, device: torch.device) -> None:
        """Bring the network to the device."""
        self.lpips.to(device)

    def __call__(
        self, reconstruction: Volumes, real: Volumes, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a batch."""
        planes = []
        for axis in range(3):
            size = reconstruction.shape[axis + 2]
            order = torch.randperm(size, generator=generator, device=generator.device)
            picked = order[: max(1, round(self.share * size))].to(reconstruction.device)
            slices = (plane_slices(volumes, axis, picked) for volumes in (reconstruction, real))
            planes.append(self.lpips(*slices).mean())
        return torch.stack(planes).mean()


class Adversary(nn.Module):
    """MONAI's PatchDiscriminator and both sides of its least-squares loss.

    The autoencoder's term leaves the discriminator's weights out and the discriminator's own loss
    the autoencoder's, so that one backward pass of their sum trains both.
    """

    def __init__(self, params: AdversarialParams) -> None:
        super().__init__()
        self.net = PatchDiscriminator(
            spatial_dims=3, channels=params.channels, in_channels=1, num_layers_d=params.layers
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares")

    def generator_loss(self, reconstruction: Volumes) -> Tensor:
        """Return the autoencoder's term: how far its volumes are from being taken for real."""
        self.net.requires_grad_(False)
        logits = self.net(reconstruction)[-1]
        self.net.requires_grad_(True)
        term: Tensor = self.loss(logits.float(), target_is_real=True, for_discriminator=False)
        return term

    def discriminator_loss(self, reconstruction: Volumes, real: Volumes) -> Tensor:
        """Return the discriminator's own loss."""
        logits = ((self.net(reconstruction.detach())[-1], False), (self.net(real)[-1], True))
        sides = [self.loss(x.float(), target_is_real=t, for_discriminator=True) for x, t in logits]
        return torch.stack(sides).mean()

    def zero_loss(self) -> Tensor:
        """Return 0 with a gradient of 0 for every weight.

        For steps before the discriminator takes part: distributed training waits for the gradient
        of every weight, and Adam counts the step for all alike.
        """
        return torch.stack([0 * p.sum() for p in self.net.parameters()]).sum()
