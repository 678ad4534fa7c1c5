"""Shift and scale that give training latents unit variance, whether they are in memory or not."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.stores.latents import Latents
from pipeline.stores.streaming import StreamedLatents

AnyLatents = Latents | StreamedLatents
Field = Float[Tensor, "C X Y Z"]

PRIOR_SCANS = 10
"""What the variance around a voxel counts, in scans, beside the variance at it."""
MIN_DEVIATION = 1e-3
"""Smallest standard deviation at a voxel, as a share of its channel's."""


def fit_standardisation(
    train: AnyLatents, scale: Literal["voxel", "channel", "scalar"] | float, *, drawn: bool
) -> tuple[Field, Field]:
    """Return (shift, scale) that give training latents unit variance; axes they share are 1 long.

    `drawn` says whether latents are posterior draws, whose variance is var(mean) +
    mean(exp(logvar)), or posterior means. `voxel` takes the mean brain away: registered brains are
    alike, and it is most of a latent. A number is taken as the scale factor as it is, with no
    shift.
    """
    if isinstance(scale, float):
        channels = next(train.blocks())[0].shape[1]
        return torch.zeros(channels, 1, 1, 1), torch.full((channels, 1, 1, 1), scale)
    axes = {"voxel": (), "channel": (1, 2, 3), "scalar": (0, 1, 2, 3)}[scale]

    def pooled(field: Field) -> Field:
        return field.mean(dim=axes, keepdim=True) if axes else field

    centre = _mean_field(train, lambda mean, _: mean)
    shift = pooled(centre)

    def square(mean: Tensor, logvar: Tensor) -> Tensor:
        return (mean - shift).square() + (logvar.exp() if drawn else 0)

    variance = pooled(_mean_field(train, square))
    if scale == "voxel":
        variance = _steadied(variance, len(train))
    shape = tuple(centre.shape) if scale == "voxel" else (len(centre), 1, 1, 1)
    return shift.expand(shape).float(), variance.rsqrt().expand(shape).float()


def _steadied(variance: Field, scans: int) -> Field:
    """Return variances of few scans pulled, as logarithms, towards those around."""
    floor = MIN_DEVIATION**2 * variance.mean(dim=(1, 2, 3), keepdim=True)
    logs = (variance * scans / (scans - 1) + floor.clamp(min=1e-12)).log()
    around = F.avg_pool3d(logs[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    steadied: Tensor = ((scans * logs + PRIOR_SCANS * around) / (scans + PRIOR_SCANS)).exp()
    return steadied


def fit_deviations(train: AnyLatents) -> tuple[Field, Float[Tensor, " C"]]:
    """Return the mean latent, and each channel's standard deviation from it over all scans."""
    centre = _mean_field(train, lambda mean, _: mean)
    variance = _mean_field(train, lambda mean, _: (mean - centre).square()).mean(dim=(1, 2, 3))
    return centre.float(), variance.sqrt().clamp(min=1e-6).float()


def _mean_field(train: AnyLatents, value: Callable[[Tensor, Tensor], Tensor]) -> Field:
    """Return the mean over scans of value(mean, logvar), float64."""
    sums = [value(mean.double(), logvar.double()).sum(0) for mean, logvar in train.blocks()]
    return torch.stack(sums).sum(0) / len(train)
