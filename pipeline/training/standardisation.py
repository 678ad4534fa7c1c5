"""Shift and scale that give latents unit variance, whether they are in memory or not."""

from typing import Literal, NamedTuple

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
FOLDS = 5
"""Parts of the training scans that are judged by the statistics of the others."""


class Moments(NamedTuple):
    """Sums over scans, float64, of latents counted from an origin close to all of them."""

    scans: Tensor
    first: Field
    second: Field

    @property
    def mean(self) -> Field:
        """Mean latent, from the origin."""
        return self.first / self.scans

    @property
    def variance(self) -> Field:
        """Variance at every voxel, of these scans alone."""
        return self.around(self.mean).clamp(min=0)

    def around(self, centre: Field) -> Field:
        """Return the mean square of latents from this centre."""
        return (self.second - 2 * centre * self.first) / self.scans + centre.square()


def fit_standardisation(
    train: AnyLatents, scale: Literal["voxel", "channel", "scalar"] | float, *, drawn: bool
) -> tuple[Field, Field]:
    """Return (shift, scale) that give latents unit variance; axes they share are 1 long.

    `drawn` says whether latents are posterior draws, whose variance is var(mean) +
    mean(exp(logvar)), or posterior means. `channel` and `scalar` give the training latents unit
    variance. `voxel` takes the mean brain away, since registered brains are alike and it is most of
    a latent, and gives it to latents of unseen scans: a dozen subjects say too little of the mean
    and the variance at a voxel, so that others lie further out (1.27 instead of 1 for 12 subjects,
    1.04 for 90). A number is taken as the scale factor as it is, with no shift.
    """
    if isinstance(scale, float):
        channels = train.take_mean(torch.zeros(1, dtype=torch.long)).shape[1]
        return torch.zeros(channels, 1, 1, 1), torch.full((channels, 1, 1, 1), scale)
    origin, folds = _moments(train, drawn=drawn)
    whole = _together(folds)
    if scale == "voxel":
        variance = _steadied(whole.variance, len(train)) * _unseen(folds)
        return (origin + whole.mean).float(), variance.rsqrt().float()
    axes = {"channel": (1, 2, 3), "scalar": (0, 1, 2, 3)}[scale]
    shift = (origin + whole.mean).mean(dim=axes, keepdim=True)
    variance = whole.around(shift - origin).mean(dim=axes, keepdim=True)
    shape = (len(origin), 1, 1, 1)
    return shift.expand(shape).float(), variance.rsqrt().expand(shape).float()


def fit_deviations(train: AnyLatents) -> tuple[Field, Float[Tensor, " C"]]:
    """Return the mean latent, and each channel's standard deviation from it over all scans."""
    origin, folds = _moments(train, drawn=False)
    whole = _together(folds)
    deviation = whole.variance.mean(dim=(1, 2, 3)).sqrt()
    return (origin + whole.mean).float(), deviation.clamp(min=1e-6).float()


def _moments(train: AnyLatents, *, drawn: bool) -> tuple[Field, list[Moments]]:
    """Return an origin and the moments of each fold, in one pass.

    A subject, the part of a scan id before the first `_`, is whole in its fold.
    """
    subjects = sorted({scan_id.split("_")[0] for scan_id in train.scan_ids})
    count = min(FOLDS, len(subjects))
    fold_of = {subject: i * count // len(subjects) for i, subject in enumerate(subjects)}
    fold = torch.tensor([fold_of[scan_id.split("_")[0]] for scan_id in train.scan_ids])
    origin = train.take_mean(torch.zeros(1, dtype=torch.long))[0].double()
    scans = torch.bincount(fold, minlength=count).to(origin.device)
    sums = torch.zeros(2, count, *origin.shape, dtype=torch.float64, device=origin.device)
    for index, mean, logvar in train.blocks():
        of = fold[index].to(origin.device)
        value = mean.to(origin.device).double() - origin
        sums[0].index_add_(0, of, value)
        sums[1].index_add_(0, of, value.square())
        if drawn:
            sums[1].index_add_(0, of, logvar.to(origin.device).double().exp())
    return origin, [Moments(*moments) for moments in zip(scans, sums[0], sums[1], strict=True)]


def _together(folds: list[Moments]) -> Moments:
    scans, first, second = zip(*folds, strict=True)
    return Moments(torch.stack(scans).sum(), torch.stack(first).sum(0), torch.stack(second).sum(0))


def _steadied(variance: Field, scans: int) -> Field:
    """Return variances of few scans pulled, as logarithms, towards those around."""
    floor = MIN_DEVIATION**2 * variance.mean(dim=(1, 2, 3), keepdim=True)
    logs = (variance * scans / (scans - 1) + floor.clamp(min=1e-12)).log()
    around = F.avg_pool3d(logs[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    steadied: Tensor = ((scans * logs + PRIOR_SCANS * around) / (scans + PRIOR_SCANS)).exp()
    return steadied


def _unseen(folds: list[Moments]) -> Float[Tensor, "C 1 1 1"]:
    """Return the variance of scans that took no part in the fit, over what the fit says.

    The median over voxels: where all but one subject agree, a ratio may be anything.
    """
    ratio = torch.zeros_like(folds[0].first)
    scans = int(_together(folds).scans)
    for i, fold in enumerate(folds):
        others = _together(folds[:i] + folds[i + 1 :]) if len(folds) > 1 else fold
        if others.scans < 2:
            return torch.ones_like(ratio[:, :1, :1, :1])
        expected = _steadied(others.variance, int(others.scans))
        ratio += fold.around(others.mean) / expected * fold.scans / scans
    return ratio.flatten(1).median(dim=1).values.reshape(-1, 1, 1, 1)
