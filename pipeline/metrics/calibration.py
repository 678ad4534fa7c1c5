"""Calibration of probabilities in two numbers: slope, and calibration in the large."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]

NEAREST = 1e-6
"""Probabilities are kept this far from 0 and 1."""
WIDEST = 50.0
"""Log odds within which calibration in the large is looked for."""


def calibration_line(truth: Floats, score: Floats, weight: Floats) -> dict[str, float]:
    """Return `calibration_slope` and `calibration_intercept` (log odds) of scores (scan,).

    Slope: by how much the log odds of the truth rise with those of the score; 1 is right, less
    is overconfident. Intercept: what is missing in the log odds with the slope held at 1; 0 is
    right. Truth is 0 or 1. NaN where one class is there, the scores are one, or they part the
    classes without error, so that no slope is steep enough.
    """
    undefined = {"calibration_slope": float("nan"), "calibration_intercept": float("nan")}
    positive = truth == 1
    if positive.all() or not positive.any():
        return undefined
    odds = logit(np.clip(score, NEAREST, 1 - NEAREST))
    intercept = brentq(lambda shift: float(weight @ (truth - expit(shift + odds))), -WIDEST, WIDEST)
    apart = odds[positive].min() > odds[~positive].max()
    reversed_ = odds[positive].max() < odds[~positive].min()
    slope = float("nan")
    if np.ptp(odds) > 0 and not apart and not reversed_:
        layer = LogisticRegression(C=np.inf, max_iter=1000)
        layer.fit(odds[:, None], truth, sample_weight=weight)
        slope = float(layer.coef_[0, 0])
    return {"calibration_slope": slope, "calibration_intercept": float(intercept)}
