"""Figures of a probe from truth and score, for all bootstrap draws at once.

A draw of subjects with replacement is a weight for each scan: how often it was drawn. So every
figure takes weights (draw, scan) and gives one number a draw. The tests hold each against
scikit-learn. Undefined figures are NaN, never an exception.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Folds = NDArray[np.intp]
T = TypeVar("T")

THRESHOLD = 0.5
"""Probability from which a scan is called positive."""
CALIBRATION_BINS = 10
"""Bins of equal width that the calibration error is taken over."""

RANKS = ("roc_auc", "pr_auc")
"""Figures that need several subjects of each class."""
OF_ONE_CLASS = ("sensitivity", "specificity")
"""Figures that scans of one class alone define."""


def without_ranks(figures: Mapping[str, T], classes: int) -> dict[str, T]:
    """Return the figures that stand where too few subjects of a class are judged to rank them.

    Where a class is missing, whoever always guesses the other is right.
    """
    return {
        name: figure
        for name, figure in figures.items()
        if name not in RANKS and (classes > 1 or name in OF_ONE_CLASS)
    }


def classification_scores(
    truth: Floats, score: Floats, weights: Floats | None = None, fold: Folds | None = None
) -> dict[str, Floats]:
    """Return the figures of a classifier, each (draw,); without weights one draw, every scan once.

    Truth is 0 or 1, score the probability of the positive. With `fold`, ROC-AUC and PR-AUC compare
    scans of one fold only: scores of two folds come from two fits, whose intercepts differ, and
    ranking them against each other would push chance below 0.5.

    `pr_auc` is average precision, `mcc` Matthews's correlation, `brier` the mean squared error of
    the probability, `calibration_error` the mean distance of observed share and probability.
    """
    weight = _weights(truth, weights)
    positive, called = truth == 1, score >= THRESHOLD
    tp, fn = weight @ (called & positive), weight @ (~called & positive)
    fp, tn = weight @ (called & ~positive), weight @ (~called & ~positive)
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    roc_auc, pr_auc = rank_areas(positive, score, weight, fold)
    total = weight.sum(axis=1)
    bins = np.minimum((score * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [np.abs(weight @ ((score - truth) * (bins == number))) for number in np.unique(bins)]
    return {
        "roc_auc": roc_auc,
        "pr_auc": pr_auc,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": _ratio(tp + tn, total),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fn + fp),
        "mcc": _matthews(tp, fn, fp, tn),
        "brier": _ratio(weight @ np.square(score - truth), total),
        "calibration_error": _ratio(np.sum(gaps, axis=0), total),
    }


def rank_areas(
    positive: NDArray[np.bool_], score: Floats, weight: Floats, fold: Folds | None = None
) -> tuple[Floats, Floats]:
    """Return the areas under the ROC and the precision-recall curve, each (draw,).

    ROC-AUC is the probability that a positive outranks a negative (of its fold), ties count half.
    PR-AUC is average precision, the mean over folds weighted by their positives.
    """
    wins = pairs = precision = positives = np.zeros(len(weight))
    for rows in _groups(len(score), fold):
        order = rows[np.argsort(-score[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
        hits = np.add.reduceat(weight[:, order] * positive[order], starts, axis=1)
        alarms = np.add.reduceat(weight[:, order] * ~positive[order], starts, axis=1)
        hits_before = np.cumsum(hits, axis=1)
        alarms_before = np.cumsum(alarms, axis=1)
        num_positive, num_negative = hits_before[:, -1], alarms_before[:, -1]
        below = num_negative[:, None] - alarms_before + 0.5 * alarms
        wins = wins + (hits * below).sum(axis=1)
        pairs = pairs + num_positive * num_negative
        here = _ratio(hits_before, hits_before + alarms_before)
        precision = precision + np.nansum(hits * here, axis=1)
        positives = positives + num_positive
    return _ratio(wins, pairs), np.where(pairs > 0, _ratio(precision, positives), np.nan)


def regression_scores(
    truth: Floats, score: Floats, weights: Floats | None = None
) -> dict[str, Floats]:
    """Return mae and rmse in the unit of the truth, r2 (at most 1) and Pearson's r, each (draw,).

    r is NaN where all scores are alike.
    """
    weight = _weights(truth, weights)
    total = weight.sum(axis=1)
    error = score - truth
    mean = _ratio(weight @ truth, total)
    spread = (weight * np.square(truth - mean[:, None])).sum(axis=1)
    squares = weight @ np.square(error)
    around = score - _ratio(weight @ score, total)[:, None]
    both = (weight * around * (truth - mean[:, None])).sum(axis=1)
    varied = (weight * np.square(around)).sum(axis=1)
    return {
        "mae": _ratio(weight @ np.abs(error), total),
        "rmse": np.sqrt(_ratio(squares, total)),
        "r2": 1 - _ratio(squares, spread),
        "r": _ratio(both, np.sqrt(varied * spread)),
    }


def gap_closed(mae: Floats, guess_mae: Floats, oracle_mae: Floats) -> Floats:
    """Return the share of the way from the median's MAE to the oracle's that an MAE goes (1: all).

    NaN where the oracle is no better than the guess.
    """
    gap = guess_mae - oracle_mae
    closed = np.full(len(gap), np.nan)
    np.divide(guess_mae - mae, gap, out=closed, where=gap > 0)
    return closed


def _weights(truth: Floats, weights: Floats | None) -> Floats:
    return np.ones((1, len(truth))) if weights is None else np.asarray(weights, dtype=np.float64)


def _groups(count: int, fold: Folds | None) -> Iterator[NDArray[np.intp]]:
    if fold is None:
        yield np.arange(count)
    else:
        yield from (np.flatnonzero(fold == number) for number in np.unique(fold))


def _matthews(tp: Floats, fn: Floats, fp: Floats, tn: Floats) -> Floats:
    """Return the correlation of truth and call; 0 where one of them is constant."""
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.where(spread > 0, _ratio(tp * tn - fp * fn, spread), 0.0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    ratio = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
