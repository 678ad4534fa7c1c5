"""Tissue fractions read from latents, and their principal modes: where people differ in amounts.

How much fluid, grey and white matter lies in a cube is no linear function of intensities, and no
principal mode of latents holds it. Of people whom no fit saw, modes of tissue fractions explain
three times as much as modes of latents do (docs/method.md), and ridge regression reads age from
them as well as from whole volumes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.blocks import Conv3d
from pipeline.nets.centred import centred
from pipeline.nets.principal_modes import PrincipalModes

FLUID_BELOW, WHITE_ABOVE = 0.4, 0.75
"""Intensities of T1-weighted volumes in [0, 1] that part fluid, grey and white matter. With other
contrasts the classes are dark, middle and bright."""
SOFTNESS = 0.03
"""Width (intensity) of the sigmoid at each limit."""
CLASSES = 3
"""Fluid, grey matter, white matter; what is missing to 1 is air."""


def tissue_fractions(
    volume: Float[Tensor, "B 1 X Y Z"], side: int
) -> Float[Tensor, "B {CLASSES} x y z"]:
    """Return the share of each class in cubes of `side` voxels of volumes in [0, 1]; air is 0."""
    above_fluid = torch.sigmoid((volume - FLUID_BELOW) / SOFTNESS)
    white = torch.sigmoid((volume - WHITE_ABOVE) / SOFTNESS)
    classes = torch.cat([1 - above_fluid, above_fluid - white, white], dim=1)
    return F.avg_pool3d(classes * (volume > 0), side)


BLOCKS = 2
"""Residual convolutions of the network; it sees seven latent voxels a side."""


class TissueNet(nn.Module):
    """A few convolutions from latents to the tissue fractions of their cubes.

    Belongs to an autoencoder, whose decoder it stands in for at a thousandth of the operations; it
    is fitted once (`training/tissue_fit.py`) and then frozen.
    """

    mean: Tensor
    unit: Tensor

    def __init__(self, *, in_channels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_channels, 1, 1, 1))
        self.register_buffer("unit", torch.ones(in_channels, 1, 1, 1))
        self.stem = Conv3d(in_channels, width, 3, padding=1)
        self.body = nn.ModuleList(Conv3d(width, width, 3, padding=1) for _ in range(BLOCKS))
        self.head = Conv3d(width, CLASSES + 1, 1)

    def forward(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B {CLASSES} x y z"]:
        """Return the fractions of latents as the store has them."""
        h = self.stem((latent - self.mean) / self.unit)
        for convolution in self.body:
            h = h + convolution(F.silu(h))
        logits: Tensor = self.head(F.silu(h)).float()
        return logits.softmax(dim=1)[:, :CLASSES]


class TissueModes(nn.Module):
    """Amounts of the principal modes of tissue fractions, read from latents."""

    mean_latent: Tensor
    """(C, x, y, z): mean latent of the training scans."""
    unit: Tensor
    """(C, 1, 1, 1): latent of a deviation of one unit; see `semantic.DeviationEncoder`."""
    centre: Tensor
    """(class, x, y, z): mean fractions of the training scans."""

    def __init__(self, *, count: int, in_channels: int, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.net = TissueNet(in_channels=in_channels, width=width).requires_grad_(False)
        self.modes = PrincipalModes(count=count, shape=(CLASSES, *grid))
        self.register_buffer("mean_latent", torch.zeros(in_channels, *grid))
        self.register_buffer("unit", torch.ones(in_channels, 1, 1, 1))
        self.register_buffer("centre", torch.zeros(CLASSES, *grid))

    def count_from(
        self, mean_latent: Float[Tensor, "C x y z"], unit: Float[Tensor, "C 1 1 1"]
    ) -> None:
        """Read deviations that count from another mean latent, in another unit, as before."""
        self.mean_latent.copy_(mean_latent)
        self.unit.copy_(unit)

    def fractions(self, deviation: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B _ x y z"]:
        """Return the tissue fractions of deviations from the mean latent."""
        mean_latent = centred(self.mean_latent, deviation.shape[2:])
        fractions: Tensor = self.net(mean_latent + self.unit * deviation)
        return fractions

    def forward(self, deviation: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B T"]:
        """Return the amounts of deviations on the encoder's own grid, in float32."""
        with torch.autocast(deviation.device.type, enabled=False):
            return self.modes.project(self.fractions(deviation.float()) - self.centre)
