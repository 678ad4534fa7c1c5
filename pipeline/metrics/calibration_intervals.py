"""Calibration slope and intercept with intervals, and how far apart an AUC says two classes are."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t

from pipeline.metrics.calibration import calibration_lines, regression_lines
from pipeline.metrics.intervals import TAIL, estimate, subject_shares, without_interval
from schemas.metrics import Estimate, Prediction

Floats = NDArray[np.float64]

FEWEST: dict[Prediction, int] = {"regression": 10, "classification": 40}
"""Fewest subjects with an interval: simulated, it holds the slope in 94 to 98 % from here on; with
20 people, that of classes would hold it in more than 99 %."""


def calibration_figures(
    truth: Floats, scores: Floats, subjects: NDArray[np.str_], kind: Prediction, *, refitted: bool
) -> dict[str, Estimate]:
    """Return `calibration_slope` and `calibration_intercept` of scores (repeat, scan).

    Student's t, its variance by the jackknife that leaves out a subject with all scans. None for
    figures of cross-validation (`refitted`), whose fits vary too; undefined figures are left out.
    """
    names, whose = np.unique(subjects, return_inverse=True)
    people = len(names)
    left_out = not refitted and people >= FEWEST[kind]
    keep = (
        np.ones((1, people)) if not left_out else np.vstack([np.ones(people), 1 - np.eye(people)])
    )
    weights = keep[:, whose] * subject_shares(subjects)
    lines = calibration_lines if kind == "classification" else regression_lines
    each = [lines(truth, score, weights) for score in scores]
    found = {}
    for name in each[0]:
        values = np.mean([one[name] for one in each], axis=0)
        if not np.isfinite(values[0]):
            continue
        found[name] = _with_interval(values, people)
    return found


def _with_interval(values: Floats, people: int) -> Estimate:
    """Return the first of values (1 + subject,), its interval by those without each subject."""
    without = values[1:]
    if not len(without) or not np.isfinite(without).all():
        return without_interval(float(values[0]), people)
    variance = (people - 1) / people * np.square(without - without.mean()).sum()
    reach = t.ppf(1 - TAIL, people - 2) * np.sqrt(variance)
    return estimate(values[0], values[0] - reach, values[0] + reach, people, "t")


def effect_size(auc: Estimate) -> Estimate | None:
    """Return Cohen's d of two normal distributions of one width that have this ROC-AUC.

    d = √2 Φ⁻¹(AUC), and so are the limits; 0.8 is called large. None for a ROC-AUC of 0 or 1, or of
    too few people; without interval where a limit is 0 or 1.
    """
    if auc.interval_method == "few" or not 0 < auc.value < 1:
        return None
    low, high = auc.interval or (0.0, 1.0)
    value = _apart(auc.value)
    if low <= 0 or high >= 1 or auc.interval_method is None:
        return without_interval(value, auc.subjects)
    return estimate(value, _apart(low), _apart(high), auc.subjects, auc.interval_method)


def _apart(area: float) -> float:
    return float(np.sqrt(2) * ndtri(area))
