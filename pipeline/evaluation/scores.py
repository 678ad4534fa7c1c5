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


def classification_scores(
    truth: Floats, score: Floats, fold: NDArray[np.intp] | None = None
) -> dict[str, float]:
    """Return CLASSIFICATION_METRICS; truth is 0 or 1, score the probability of the positive.

    With `fold`, ROC-AUC compares scans of one fold only: scores of two folds come from two fits,
    whose intercepts differ, and ranking them against each other would push chance below 0.5.
    """
    positive = truth == 1
    called = score >= THRESHOLD
    hits, misses = int((called & positive).sum()), int((~called & positive).sum())
    false_alarms, rejections = int((called & ~positive).sum()), int((~called & ~positive).sum())
    sensitivity = _ratio(hits, hits + misses)
    specificity = _ratio(rejections, rejections + false_alarms)
    return {
        "roc_auc": roc_auc(positive, score, fold),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": _ratio(hits + rejections, len(truth)),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * hits, 2 * hits + misses + false_alarms),
    }


def roc_auc(
    positive: NDArray[np.bool_], score: Floats, fold: NDArray[np.intp] | None = None
) -> float:
    """Return the probability that a positive outranks a negative (of its fold); ties count half."""
    groups = [slice(None)] if fold is None else [fold == number for number in np.unique(fold)]
    wins, pairs = 0.0, 0
    for group in groups:
        chosen = positive[group]
        num_positive = int(chosen.sum())
        num_pairs = num_positive * (len(chosen) - num_positive)
        if num_pairs:
            rank_sum = float(rankdata(score[group])[chosen].sum())
            wins += rank_sum - num_positive * (num_positive + 1) / 2
            pairs += num_pairs
    return wins / pairs if pairs else float("nan")


def regression_scores(truth: Floats, score: Floats) -> dict[str, float]:
    """Return REGRESSION_METRICS: mae and rmse in the unit of the truth, r2 at most 1."""
    error = score - truth
    spread = float(np.square(truth - truth.mean()).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": 1 - _ratio(float(np.square(error).sum()), spread),
    }


def _ratio(part: float | int, whole: float | int) -> float:
    return part / whole if whole > 0 else float("nan")
