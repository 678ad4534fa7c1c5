"""What a Gaussian brain says of noise: the closed form that a denoiser is measured against.

Given y_sem, z_0 has the mean of its modes, and around it what the modes leave over, with a variance
at each voxel. Were that all, and Gaussian, the best guess of the noise in x_t would be the Wiener
filter. A denoiser trained on few brains is better than it where there is little noise, and worse
where there is much: there it draws details of training people from noise (docs/method.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.centred import centred

NODES = 8
"""Timesteps at which weights are fitted, evenly spread; linear between."""

Field = Float[Tensor, "B C X Y Z"]
Column = Float[Tensor, "B 1 1 1 1"]


def between_nodes(weights: Float[Tensor, " node"], place: Float[Tensor, " B"]) -> Tensor:
    """Return weights at places from 0 (no noise) to 1 (the last timestep)."""
    at = place * (NODES - 1)
    below = at.floor().clamp(0, NODES - 2).long()
    return torch.lerp(weights[below], weights[below + 1], at - below)


class GaussianPrior(nn.Module):
    """Mixes a denoiser's noise with that of Gaussian latents, timestep by timestep.

    It starts with full trust in the denoiser, as models of before have it.
    """

    variance: Tensor
    """(C, X, Y, Z): of z_0 of unseen scans around the mean of their modes."""
    trust: Tensor
    """(NODES,): weight of the denoiser at evenly spread timesteps, 0 to 1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("trust", torch.ones(NODES))

    def noise(self, x_t: Field, mean: Field, alpha: Column, sigma: Column) -> Field:
        """Return the expected noise in x_t if z_0 is Gaussian around `mean`."""
        variance = centred(self.variance, x_t.shape[2:])
        return sigma * (x_t - alpha * mean) / (alpha.square() * variance + sigma.square())

    def mixed(
        self,
        eps: Field,
        x_t: Field,
        mean: Field,
        alpha: Column,
        sigma: Column,
        place: Float[Tensor, " B"],
    ) -> Field:
        """Return the denoiser's noise, as far as it is trusted, and the Gaussian one."""
        trust = between_nodes(self.trust, place)[:, None, None, None, None]
        return torch.lerp(self.noise(x_t.float(), mean, alpha, sigma), eps.float(), trust)
