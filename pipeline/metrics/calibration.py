"""Calibration of predictions in two numbers: slope, and calibration in the large."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEAREST = 1e-6
"""Probabilities are kept this far from 0 and 1."""
WIDEST = 50.0
"""Log odds within which calibration in the large is looked for."""
HALVINGS = 60
STEPS = 40
"""Newton's, at most."""
LONGEST_STEP = 2.0
"""Of slope or intercept, in standard deviations of the log odds."""


def calibration_lines(truth: Floats, score: Floats, weights: Floats) -> dict[str, Floats]:
    """Return `calibration_slope` and `calibration_intercept` (log odds), each (draw,).

    Slope: by how much the log odds of the truth rise with those of the score; 1 is right, less
    is overconfident. Intercept: what is missing in the log odds with the slope held at 1; 0 is
    right. Truth is 0 or 1, truth and score are (scan,), weights (draw, scan); classes are weighed
    alike in each draw. NaN where one class is there, the scores are one, or they part the classes
    without error, so that no slope is steep enough.
    """
    positive, there = truth == 1, weights > 0
    usable = (there & positive).any(axis=1) & (there & ~positive).any(axis=1)
    weight = _even(truth, weights, usable)
    odds = logit(np.clip(score, NEAREST, 1 - NEAREST))
    slope = np.full(len(weights), np.nan)
    steep = usable & ~_parted(positive, odds, there)
    if steep.any():
        slope[steep] = _slopes(truth, odds, weight[steep])
    intercept = np.where(usable, _shifts(truth, odds, weight), np.nan)
    return {"calibration_slope": slope, "calibration_intercept": intercept}


def regression_lines(truth: Floats, score: Floats, weights: Floats) -> dict[str, Floats]:
    """Return `calibration_slope` and `calibration_intercept` of numbers, each (draw,).

    Slope: of the truth on the prediction; 1 is right, less means that predictions lie too far
    from their mean. Intercept: mean truth minus mean prediction, in the truth's unit; 0 is right.
    The slope is NaN where all predictions are one.
    """
    total = weights.sum(axis=1, keepdims=True)
    x, y = (values - weights @ values[:, None] / total for values in (score, truth))
    spread = (weights * np.square(x)).sum(axis=1)
    slope = np.full(len(weights), np.nan)
    tiny = 1e-12 * (weights @ np.square(score) + np.finfo(float).tiny)
    np.divide((weights * x * y).sum(axis=1), spread, out=slope, where=spread > tiny)
    return {
        "calibration_slope": slope,
        "calibration_intercept": weights @ (truth - score) / total[:, 0],
    }


def _even(truth: Floats, weights: Floats, usable: Bools) -> Floats:
    """Return weights (draw, scan) of sum 1 by which the two classes weigh alike."""
    even = np.zeros_like(weights)
    for label in (0, 1):
        of_class = weights * (truth == label)
        total = of_class.sum(axis=1, keepdims=True)
        even += np.divide(of_class, 2 * total, out=np.zeros_like(weights), where=total > 0)
    return even * usable[:, None]


def _parted(positive: Bools, odds: Floats, there: Bools) -> Bools:
    """Return where (draw,) the classes are parted without error, or all scores are one."""

    def ends(rows: Bools) -> tuple[Floats, Floats]:
        inside = there & rows
        low, high = (np.where(inside, odds, edge) for edge in (np.inf, -np.inf))
        return low.min(axis=1), high.max(axis=1)

    (low, high), (other_low, other_high) = ends(positive), ends(~positive)
    one = (low == other_low) & (high == other_high) & (low == high)
    parted: Bools = (low > other_high) | (high < other_low) | one
    return parted


def _shifts(truth: Floats, odds: Floats, weight: Floats) -> Floats:
    low = np.full(len(weight), -WIDEST)
    high = -low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        missing = (weight * (truth - expit(middle[:, None] + odds))).sum(axis=1)
        low, high = np.where(missing > 0, middle, low), np.where(missing > 0, high, middle)
    shift: Floats = (low + high) / 2
    return shift


def _slopes(truth: Floats, odds: Floats, weight: Floats) -> Floats:
    """Return slopes (draw,) of logistic regressions on the log odds, by Newton's method."""
    unit = float(odds.std())
    x = (odds - odds.mean()) / unit
    slope, shift = np.zeros(len(weight)), np.zeros(len(weight))
    for _ in range(STEPS):
        p = expit(shift[:, None] + slope[:, None] * x)
        missing, curve = weight * (truth - p), weight * p * (1 - p)
        one, two = missing.sum(axis=1), missing @ x
        a, b, c = curve.sum(axis=1), curve @ x, curve @ np.square(x)
        area = np.maximum(a * c - b * b, 1e-12)
        steps = (c * one - b * two) / area, (a * two - b * one) / area
        shift += np.clip(steps[0], -LONGEST_STEP, LONGEST_STEP)
        slope += np.clip(steps[1], -LONGEST_STEP, LONGEST_STEP)
        if max(np.abs(step).max() for step in steps) < 1e-10:
            break
    slopes: Floats = slope / unit
    return slopes
