"""Figures of a probe from truth and score, written for a thousand bootstrap draws.

The tests hold each against scikit-learn. Undefined figures are NaN, never an exception.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

THRESHOLD = 0.5
"""Probability from which a scan is called positive."""

CLASSIFICATION_METRICS = (
    "roc_auc",
    "balanced_accuracy",
    "accuracy",
    "sensitivity",
    "specificity",
    "f1",
)
REGRESSION_METRICS = ("mae", "rmse", "r2")


def classification_scores(truth: Floats, score: Floats) -> dict[str, float]:
    """Return CLASSIFICATION_METRICS; truth is 0 or 1, score the probability of the positive."""
    positive = truth == 1
    called = score >= THRESHOLD
    hits, misses = np.sum(called & positive), np.sum(~called & positive)
    false_alarms, rejections = np.sum(called & ~positive), np.sum(~called & ~positive)
    sensitivity = _ratio(hits, hits + misses)
    specificity = _ratio(rejections, rejections + false_alarms)
    return {
        "roc_auc": roc_auc(positive, score),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": _ratio(hits + rejections, len(truth)),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * hits, 2 * hits + misses + false_alarms),
    }


def roc_auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Return the probability that a positive outranks a negative; ties count half."""
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def regression_scores(truth: Floats, score: Floats) -> dict[str, float]:
    """Return REGRESSION_METRICS: mae and rmse in the unit of the truth, r2 at most 1."""
    error = score - truth
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": 1 - _ratio(np.square(error).sum(), np.square(truth - truth.mean()).sum()),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else float("nan")
