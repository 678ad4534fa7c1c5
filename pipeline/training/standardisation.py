"""Shift and scale that give latents unit variance, whether they are in memory or not."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.cohort.subjects import subjects_of
from pipeline.stores.latents import Latents
from pipeline.stores.streaming import StreamedLatents

AnyLatents = Latents | StreamedLatents
Field = Float[Tensor, "C X Y Z"]

PRIOR_SUBJECTS = 10
"""Weight of the neighbourhood variance, as a number of pseudo-subjects."""
MIN_SUBJECTS = 4
"""Fewest subjects from which the spread of unseen ones is estimated."""
MIN_DEVIATION = 1e-3
"""Smallest standard deviation at a voxel, as a share of its channel's."""
FOLDS = 5
"""Folds of subjects, for what is estimated on subjects that took no part in a fit."""
BACKGROUND = 1e-3
"""Variance below which a voxel is background, as a share of its channel's."""


class Statistics(NamedTuple):
    """Shift and scale of z_0 = (latent - shift) * scale; axes that share a number are 1 long."""

    shift: Field
    scale: Field
    margin: Float[Tensor, "C 1 1 1"]
    """Ratio of held-out to training standard deviation, a channel."""


class Moments(NamedTuple):
    """Weighted sums over scans, float64, of latents counted from an origin close to all of them."""

    weight: Tensor
    first: Field
    second: Field

    @property
    def mean(self) -> Field:
        """Mean latent, from the origin."""
        return self.first / self.weight

    @property
    def variance(self) -> Field:
        """Variance at every voxel, of these scans alone."""
        return self.around(self.mean).clamp(min=0)

    def around(self, centre: Field) -> Field:
        """Return the mean square of latents from this centre."""
        return (self.second - 2 * centre * self.first) / self.weight + centre.square()


def subject_folds(scan_ids: Sequence[str]) -> Tensor:
    """Return the fold of each scan, 0 to at most 4; a subject is whole in its fold."""
    subjects = subjects_of(scan_ids)
    names = sorted(set(subjects))
    count = min(FOLDS, len(names))
    fold_of = {name: i * count // len(names) for i, name in enumerate(names)}
    return torch.tensor([fold_of[subject] for subject in subjects])


def estimate_standardisation(
    train: AnyLatents, scale: Literal["voxel", "channel", "scalar"] | float, *, sampled: bool
) -> Statistics:
    """Return shift and scale that give latents unit variance.

    With `sampled`, training samples latents from their posteriors, so that their variance is
    var(mean) + mean(exp(logvar)); without, they are posterior means. `channel` and `scalar` give
    the training latents unit variance. A number is the scale factor as it is, with no shift.

    `voxel` takes the mean brain away, since registered brains are alike and it is most of a latent.
    Subjects count alike, however many visits they have. The variance is that of unseen scans: a
    dozen subjects determine mean and variance at a voxel poorly, so others lie further out, by a
    quarter (with 90 subjects by 4 %). Training widens its latents by that `margin`.
    """
    if isinstance(scale, float):
        ones = torch.ones(train.take_mean(torch.zeros(1, dtype=torch.long)).shape[1], 1, 1, 1)
        return Statistics(0 * ones, scale * ones, ones)
    origin, folds = _moments(train, sampled=sampled, by_subject=scale == "voxel")
    whole = _pool(folds)
    ones = torch.ones(len(origin), 1, 1, 1, device=origin.device)
    if scale == "voxel":
        variance = _shrink(whole.variance, whole.weight) * _held_out_ratio(folds)
        margin = _median_ratio(variance / whole.variance, whole.variance).sqrt()
        shift, factor = (origin + whole.mean).float(), variance.rsqrt().float()
        return Statistics(shift, factor, margin.float())
    axes = {"channel": (1, 2, 3), "scalar": (0, 1, 2, 3)}[scale]
    shift = (origin + whole.mean).mean(dim=axes, keepdim=True)
    variance = whole.around(shift - origin).mean(dim=axes, keepdim=True)
    return Statistics(ones * shift.float(), ones * variance.rsqrt().float(), ones)


def estimate_deviations(train: AnyLatents) -> tuple[Field, Float[Tensor, " C"]]:
    """Return the mean latent, and each channel's standard deviation from it over all scans."""
    origin, folds = _moments(train, sampled=False, by_subject=True)
    whole = _pool(folds)
    deviation = whole.variance.mean(dim=(1, 2, 3)).sqrt()
    return (origin + whole.mean).float(), deviation.clamp(min=1e-6).float()


def _moments(train: AnyLatents, *, sampled: bool, by_subject: bool) -> tuple[Field, list[Moments]]:
    """Return an origin and the moments of each fold of subjects, in one pass."""
    fold = subject_folds(train.scan_ids)
    count = int(fold.max()) + 1
    subjects = subjects_of(train.scan_ids)
    visits = Counter(subjects)
    share = torch.tensor([1 / visits[s] if by_subject else 1.0 for s in subjects]).double()
    origin = train.take_mean(torch.zeros(1, dtype=torch.long))[0].double()
    weight = torch.zeros(count, dtype=torch.float64).index_add_(0, fold, share).to(origin.device)
    sums = torch.zeros(2, count, *origin.shape, dtype=torch.float64, device=origin.device)
    for index, mean, logvar in train.blocks():
        fold_of = fold[index].to(origin.device)
        weights = share[index].reshape(-1, 1, 1, 1, 1).to(origin.device)
        value = mean.to(origin.device).double() - origin
        sums[0].index_add_(0, fold_of, weights * value)
        sums[1].index_add_(0, fold_of, weights * value.square())
        if sampled:
            sums[1].index_add_(0, fold_of, weights * logvar.to(origin.device).double().exp())
    return origin, [Moments(*moments) for moments in zip(weight, sums[0], sums[1], strict=True)]


def _pool(folds: list[Moments]) -> Moments:
    weight, first, second = zip(*folds, strict=True)
    return Moments(torch.stack(weight).sum(), torch.stack(first).sum(0), torch.stack(second).sum(0))


def shrunk_variance(variance: Field, subjects: int) -> Field:
    """Return variances at voxels, those of few subjects shrunk towards their neighbours'."""
    return _shrink(variance.double(), torch.tensor(float(subjects))).float()


def _shrink(variance: Field, subjects: Tensor) -> Field:
    """Return variances of few subjects, as logarithms shrunk towards those of neighbour voxels."""
    level = variance.mean(dim=(1, 2, 3), keepdim=True)
    floor = (MIN_DEVIATION**2 * level).clamp(min=1e-12)
    logs = (variance * subjects / (subjects - 1).clamp(min=0.5) + floor).log()
    varies = (variance > BACKGROUND * level).to(logs.dtype)

    sides = [3 if n >= 3 else 1 for n in variance.shape[1:]]

    def pooled(field: Field) -> Field:
        return F.avg_pool3d(field[None], sides, stride=1, padding=[n // 2 for n in sides])[0]

    weight = pooled(varies)
    around = torch.where(weight > 0, pooled(varies * logs) / weight, logs)
    shrunk: Field = (subjects * logs + PRIOR_SUBJECTS * around) / (subjects + PRIOR_SUBJECTS)
    return shrunk.exp()


def _held_out_ratio(folds: list[Moments]) -> Float[Tensor, "C 1 1 1"]:
    """Return the variance of held-out subjects over the one estimated from the others."""
    ratio = torch.zeros_like(folds[0].first)
    whole = _pool(folds)
    if whole.weight < MIN_SUBJECTS:
        return torch.ones_like(ratio[:, :1, :1, :1])
    for i, fold in enumerate(folds):
        others = _pool(folds[:i] + folds[i + 1 :])
        expected = _shrink(others.variance, others.weight)
        ratio += fold.around(others.mean) / expected * fold.weight / whole.weight
    return _median_ratio(ratio, whole.variance)


def _median_ratio(ratio: Field, variance: Field) -> Float[Tensor, "C 1 1 1"]:
    """Return each channel's median over the voxels that vary at all; 1 where none does.

    Background is the same in all scans, and where all but one agree a ratio may be anything.
    """
    varies = variance > BACKGROUND * variance.mean(dim=(1, 2, 3), keepdim=True)
    medians = [
        r[v].median() if v.any() else r.new_ones(()) for r, v in zip(ratio, varies, strict=True)
    ]
    return torch.stack(medians).reshape(-1, 1, 1, 1)
