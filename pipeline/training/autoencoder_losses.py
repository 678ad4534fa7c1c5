"""Terms of the autoencoder's loss beside L1 and KL: perceptual, and patch-adversarial."""

import torch
from jaxtyping import Float
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.nets.lpips import Lpips, plane_slices
from schemas.autoencoder import AdversarialParams

Volumes = Float[Tensor, "B 1 X Y Z"]


def perceptual_distance(
    lpips: Lpips, made: Volumes, real: Volumes, *, share: float, generator: torch.Generator
) -> Tensor:
    """Return the mean LPIPS of randomly picked slices, over the three planes."""
    planes = []
    for axis in range(3):
        size = made.shape[axis + 2]
        order = torch.randperm(size, generator=generator, device=generator.device)
        picked = order[: max(1, round(share * size))].to(made.device)
        planes.append(
            lpips(plane_slices(made, axis, picked), plane_slices(real, axis, picked)).mean()
        )
    return torch.stack(planes).mean()


class Adversary(nn.Module):
    """MONAI's PatchDiscriminator and both sides of its least-squares loss.

    Each side sees the other's weights as constants, so one backward pass trains both, and both
    share one optimiser: with Adam the very steps of two optimisers in turn.
    """

    def __init__(self, params: AdversarialParams) -> None:
        super().__init__()
        self.net = PatchDiscriminator(
            spatial_dims=3, channels=params.channels, in_channels=1, num_layers_d=params.layers
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares")

    def fooled(self, made: Volumes) -> Tensor:
        """Return the autoencoder's term: how far its volumes are from being taken for real."""
        constants = {name: p.detach() for name, p in self.net.named_parameters()}
        logits = functional_call(self.net, constants, (made,))[-1]
        term: Tensor = self.loss(logits.float(), target_is_real=True, for_discriminator=False)
        return term

    def mistaken(self, made: Volumes, real: Volumes) -> Tensor:
        """Return the discriminator's own loss."""
        judged = ((self.net(made.detach())[-1], False), (self.net(real)[-1], True))
        sides = [self.loss(x.float(), target_is_real=t, for_discriminator=True) for x, t in judged]
        return torch.stack(sides).mean()

    def idle(self) -> Tensor:
        """Return 0 that every weight took part in, as distributed training demands."""
        return torch.stack([0 * p.sum() for p in self.net.parameters()]).sum()
