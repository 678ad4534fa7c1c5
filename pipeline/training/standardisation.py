"""Shift and scale that give training latents unit variance, whether they are in memory or not."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.stores.latents import Latents
from pipeline.stores.streaming import StreamedLatents

AnyLatents = Latents | StreamedLatents


def fit_standardisation(
    train: AnyLatents, scale: Literal["channel", "scalar"] | float
) -> tuple[list[float], list[float]]:
    """Return (shift, scale), one number a channel, that give training latents unit variance.

    The variance is that of posterior draws: var(mean) + mean(exp(logvar)). A number is taken as
    the scale factor as it is, with no shift.
    """
    if isinstance(scale, float):
        channels = next(train.blocks())[0].shape[1]
        return [0.0] * channels, [scale] * channels
    shift = _mean_over([_channels(mean).sum(1) for mean, _ in train.blocks()], train)
    if scale == "scalar":
        shift = shift.mean().expand(len(shift))
    variance = _mean_over(
        [
            ((_channels(mean) - shift[:, None]).square() + _channels(logvar).exp()).sum(1)
            for mean, logvar in train.blocks()
        ],
        train,
    )
    if scale == "scalar":
        variance = variance.mean().expand(len(shift))
    return shift.tolist(), variance.rsqrt().tolist()


def fit_deviations(train: AnyLatents) -> tuple[Float[Tensor, "C X Y Z"], Float[Tensor, " C"]]:
    """Return the mean latent, and each channel's standard deviation from it over all scans."""
    centre = torch.stack([mean.double().sum(0) for mean, _ in train.blocks()]).sum(0) / len(train)
    squares = [_channels(mean.double() - centre).square().sum(1) for mean, _ in train.blocks()]
    return centre.float(), _mean_over(squares, train).sqrt().clamp(min=1e-6).float()


def _mean_over(sums: list[Tensor], train: AnyLatents) -> Tensor:
    voxels = next(train.blocks())[0][0, 0].numel()
    return torch.stack(sums).sum(0) / (len(train) * voxels)


def _channels(values: Tensor) -> Tensor:
    """Return (channel, all else) as float64."""
    return values.double().transpose(0, 1).flatten(1)
