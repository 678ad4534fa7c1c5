"""One standardised linear layer, its strength picked by cross-validation over subjects.

Every subject weighs the same in a fit, however many visits it has: its scans share one weight.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from pipeline.metrics.intervals import subject_shares
from pipeline.models.direction import Direction
from pipeline.probes.layers.fits import fit_layers
from schemas.metrics import Prediction

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

C_GRID = np.logspace(-4, 1, 6)
"""Inverse strengths of the logistic penalty; features are standardised."""
ALPHA_GRID = np.logspace(-1, 5, 7)
"""Strengths of the ridge penalty; features are standardised."""


LARGE = 1_000_000
"""Values (scans times features) from which BLAS threads help a fit more than they cost."""
TRIES = 20
"""Folds drawn a repeat, at most, until one parts the subjects as none before it did."""


@contextmanager
def many_fits(size: int) -> Iterator[None]:
    """Make thousands of fits of so many values quick.

    scikit-learn's checks would take longer than the fits, and waking BLAS threads for small ones
    two and a half times the processor's time of one thread.
    """
    with (
        sklearn.config_context(assume_finite=True, skip_parameter_validation=True),
        threadpool_limits(1 if size < LARGE else None, user_api="blas"),
    ):
        yield


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Every number of a fitted probe."""

    kind: Prediction
    mean: Floats
    """(dim,), of the fitting scans."""
    std: Floats
    """(dim,), of the fitting scans; 1 where a feature is constant."""
    coef: Floats
    """(dim,), on standardised features."""
    intercept: float
    strength: float | None
    """C (classification) or alpha (regression); None where nothing was picked."""

    def score(self, features: NDArray[np.floating]) -> Floats:
        """Return the probability of the positive class, or the predicted value, (scan,)."""
        if not len(self.coef):
            value: Floats = np.full(len(features), self.intercept)
        else:
            standardised = (np.asarray(features, dtype=np.float64) - self.mean) / self.std
            value = standardised @ self.coef + self.intercept
        return np.asarray(expit(value)) if self.kind == "classification" else value

    def numbers(self) -> list[Floats]:
        """Return every fitted number."""
        rest = np.array([self.intercept, np.nan if self.strength is None else self.strength])
        return [self.mean, self.std, self.coef, rest]


def fit_chance(truth: Floats, kind: Prediction, subjects: NDArray[Any]) -> LinearProbe:
    """Return the best probe without features: the majority class, or the median.

    Of all constants the median has the least absolute error.
    """
    empty = np.empty(0)
    weight = subject_shares(subjects)
    if kind == "classification":
        intercept = float(logit(np.average(truth, weights=weight)))
    else:
        intercept = weighted_median(truth, weight)
    return LinearProbe(kind, empty, empty, empty, intercept, None)


def weighted_median(values: Floats, weight: Floats) -> float:
    """Return the value with half of the weight on either side; the middle of two such."""
    order = np.argsort(values, kind="stable")
    ordered, reached = values[order], np.cumsum(weight[order]) / weight.sum()
    low = int(np.searchsorted(reached, 0.5 - 1e-9))
    high = int(np.searchsorted(reached, 0.5 + 1e-9))
    return float(ordered[low] + ordered[min(high, len(ordered) - 1)]) / 2


def fit_linear(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    *,
    folds: int,
    seed: int,
    strength: float | None = None,
    scaled: bool = True,
) -> LinearProbe:
    """Fit a logistic (classes weighted equally) or ridge layer on standardised features.

    `subjects` (scan,) tells whose scan each is; subjects weigh alike.

    Without a strength, C or alpha is the one with the best mean score over inner folds of
    subjects: log-likelihood with equal class weights, or squared error. The middle of the grid
    where no fold can be made. Not `scaled`, features share one standard deviation, so that the
    penalty spares those that vary most (principal components unwhitened).
    """
    x = np.asarray(features, dtype=np.float64)
    if strength is None:
        strength, _ = pick_strength(x, truth, subjects, kind, folds=folds, seed=seed, scaled=scaled)
    weight = subject_weight(subjects)
    space = Space.of(x, weight, scaled=scaled, principal=False)
    layer = fit_layers(space.reduce(x), truth, _weight_of(weight, truth, kind), kind, strength)
    coef = space.expand(layer.coef[0])
    return LinearProbe(kind, space.mean, space.std, coef, float(layer.intercept[0]), strength)


@dataclass(frozen=True, slots=True)
class Space:
    """Standardised features, turned onto the axes that the fitting scans span.

    Where there are more features than scans, a penalised layer lies in that span, so that it can
    be fitted on as many numbers as there are scans: the same probe in a fraction of the time.
    """

    mean: Floats
    std: Floats
    """1 where a feature is constant."""
    axes: Floats | None
    """(rank, dim), orthonormal rows."""

    @classmethod
    def of(
        cls, x: Floats, weight: Floats, *, scaled: bool = True, principal: bool = True
    ) -> "Space":
        """Return the space of fitting scans (scan, dim) with weights (scan,) of mean 1.

        Not `scaled`, all features are divided by one number: the root of their mean variance.
        Not `principal`, the axes are any of the span, found twice as fast: a layer is the same.
        """
        # Exact for weights of 1: the mean and spread that NumPy gives.
        mean = (x * weight[:, None]).mean(axis=0)
        std = np.sqrt((np.square(x - mean) * weight[:, None]).mean(axis=0))
        if not scaled:
            std = np.full_like(std, np.sqrt(np.square(std).mean()))
        std = np.where(std > np.finfo(float).eps * np.abs(mean), std, 1.0)
        axes = None
        if x.shape[1] > len(x):
            z = (x - mean) / std
            axes = np.linalg.svd(z, full_matrices=False)[2] if principal else np.linalg.qr(z.T)[0].T
        return cls(mean, std, axes)

    def reduce(self, x: Floats) -> Floats:
        """Return what a layer is fitted on."""
        z = (x - self.mean) / self.std
        return z if self.axes is None else z @ self.axes.T

    def expand(self, coef: Floats) -> Floats:
        """Return a layer's weights on the standardised features."""
        return coef if self.axes is None else coef @ self.axes


def subject_weight(subjects: NDArray[Any]) -> Floats:
    """Return weights of scans (scan,), of mean 1, by which subjects weigh alike."""
    share = subject_shares(subjects)
    weight: Floats = share / share.mean()
    return weight


def balanced(weight: Floats, truth: Floats) -> Floats:
    """Return the weights with those of each class multiplied so that classes weigh alike.

    Of weights (scan,) and truth (..., scan), for each labelling.
    """
    positive = truth == 1
    ones = np.where(positive, weight, 0).sum(axis=-1, keepdims=True)
    zeros = np.where(positive, 0, weight).sum(axis=-1, keepdims=True)
    classes = 1.0 * (ones > 0) + (zeros > 0)
    own = np.where(positive, ones, zeros)
    even: Floats = weight * weight.sum() / classes / own
    return even


def _weight_of(weight: Floats, truth: Floats, kind: Prediction) -> Floats:
    """Return the weights of scans in a fit: classes weigh alike."""
    return weight if kind == "regression" else balanced(weight, truth)


def pick_strength(
    x: Floats,
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    *,
    folds: int,
    seed: int,
    scaled: bool,
) -> tuple[float, float]:
    """Return the strength with the best score over inner folds, and that score (0 without folds).

    Scores of other features of the same scans are on the same folds, so that they can be compared.
    """
    strengths = C_GRID if kind == "classification" else ALPHA_GRID
    gain = np.zeros(len(strengths))
    for fit, held_out in grouped_folds(truth, subjects, kind, folds=folds, seed=seed):
        weight, share = subject_weight(subjects[fit]), subject_weight(subjects[held_out])
        space = Space.of(x[fit], weight, scaled=scaled, principal=False)
        how = _weight_of(weight, truth[fit], kind)
        layers = fit_layers(space.reduce(x[fit]), truth[fit], how, kind, strengths)
        value, known = layers.value(space.reduce(x[held_out])), truth[held_out]
        if kind == "classification":
            gain += _balanced_log_likelihood(value, known, share)
        else:
            gain -= np.average(np.square(value - known), axis=1, weights=share)
    best = int(np.argmax(gain)) if gain.any() else len(strengths) // 2
    return float(strengths[best]), float(gain[best])


def grouped_folds(
    truth: Floats, subjects: NDArray[Any], kind: Prediction, *, folds: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """Yield (fitting rows, held-out rows); no subject on both sides, classes spread evenly.

    Subjects count alike, however many scans they have. There are at most as many folds as subjects
    (of the rarer class). Folds that would leave one class only to fit on are not yielded.
    """
    if kind == "classification":
        counts = [len(np.unique(subjects[truth == label])) for label in (0, 1)]
    else:
        counts = [len(np.unique(subjects))]
    num_folds = min(folds, *counts)
    if num_folds < 2:
        return
    if kind == "classification":
        fold = _stratified(truth, subjects, num_folds, seed)
        splits = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(num_folds)]
    else:
        splitter = GroupKFold(num_folds, shuffle=True, random_state=seed % 2**32)
        splits = list(splitter.split(np.zeros(len(truth)), truth, subjects))
    for fit, held_out in splits:
        if len(held_out) and (kind == "regression" or len(np.unique(truth[fit])) == 2):
            yield fit, held_out


def _stratified(truth: Floats, subjects: NDArray[Any], num_folds: int, seed: int) -> Rows:
    """Return the fold of each row; every fold holds subjects of both classes.

    scikit-learn's StratifiedGroupKFold sorts subjects by their numbers of scans, and shuffles only
    those with equal ones: where all differ, every seed gives the same folds.
    """
    names, of = np.unique(subjects, return_inverse=True)
    share = np.bincount(of, weights=truth) / np.bincount(of)
    # Subjects of both classes in the middle: with either side they go to consecutive folds.
    stratum = np.where(share == 0, 0, np.where(share == 1, 2, 1))
    drawn = np.random.default_rng(seed % 2**32).permutation(len(names))
    drawn = drawn[np.argsort(stratum[drawn], kind="stable")]
    fold = np.empty(len(names), dtype=np.intp)
    fold[drawn] = np.arange(len(names)) % num_folds
    return fold[of]


def repeated_folds(
    truth: Floats, subjects: NDArray[Any], kind: Prediction, *, folds: int, repeats: int, seed: int
) -> list[list[tuple[Rows, Rows]]]:
    """Return the folds of every repeat; no two repeats part the subjects alike.

    Few subjects can be parted in few ways: there are fewer repeats then.
    """
    by_parting: dict[frozenset[bytes], list[tuple[Rows, Rows]]] = {}
    for attempt in range(TRIES * repeats):
        splits = list(grouped_folds(truth, subjects, kind, folds=folds, seed=seed + attempt))
        by_parting.setdefault(frozenset(held_out.tobytes() for _, held_out in splits), splits)
        if not splits or len(by_parting) == repeats:
            break
    return list(by_parting.values())


def _balanced_log_likelihood(value: Floats, truth: Floats, weight: Floats) -> Floats:
    """Return the log-likelihoods of log odds (fit, scan), classes weighted equally, (fit,)."""
    probability = np.clip(expit(value), 1e-12, 1 - 1e-12)
    likelihood = np.where(truth == 1, np.log(probability), np.log1p(-probability))
    each = [
        np.average(likelihood[:, truth == label], axis=1, weights=weight[truth == label])
        for label in np.unique(truth)
    ]
    mean: Floats = np.mean(each, axis=0)
    return mean


def direction_of(
    probe: LinearProbe, features: NDArray[np.floating], towards: str
) -> Direction | None:
    """Return the direction of a probe and the features (scan, dim) that it was fitted on.

    None where all weights are zero.
    """
    length = float(np.linalg.norm(probe.coef))
    if length == 0:
        return None
    weight = probe.coef / length
    standardised = (np.asarray(features, dtype=np.float64) - probe.mean) / probe.std
    along = standardised @ weight
    spread = float(np.std(along))
    pattern = None
    if spread > 0:
        apart = along - along.mean()
        pattern = spread * (apart @ standardised) / (apart @ apart)
    return Direction(weight, probe.mean, probe.std, spread, towards, pattern=pattern)
