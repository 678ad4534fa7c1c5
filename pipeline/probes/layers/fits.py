"""Penalised layers of several strengths or labels, fitted to the same scans together.

A probe is thousands of fits to few scans. Ridge has all of them from one eigendecomposition, and
Newton's method takes those of a logistic layer side by side; scikit-learn's checks and its limited
memory of one fit at a time take some ten times as long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from schemas.metrics import Prediction

Floats = NDArray[np.float64]

AT_A_TIME = 4_000_000
"""Numbers of second derivatives that are held at a time."""
ROUNDS = 100
"""Of Newton's method, at most; some seven are usual."""
HALVINGS = 30
CONVERGED = 1e-7
"""Change of the linear predictor in a round below which a fit is done: the next one would change it
by the square."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Fitted layers."""

    coef: Floats
    """(fit, dim)."""
    intercept: Floats
    """(fit,)."""

    def value(self, x: Floats) -> Floats:
        """Return the value before any link, (fit, scan), of features (scan, dim)."""
        value: Floats = self.coef @ x.T + self.intercept[:, None]
        return value


def fit_layers(
    x: Floats, truth: Floats, weight: Floats, kind: Prediction, strengths: ArrayLike
) -> Layers:
    """Fit one penalised layer for each strength and labelling; the two broadcast.

    Parameters
    ----------
    x
        Features (scan, dim), best at most as many as scans.
    truth
        Labels (scan,) or (fit, scan): numbers, or 0 and 1.
    weight
        (scan,), or of classes (fit, scan).
    kind
        Ridge for numbers: weighted squares + alpha · ‖coef‖². Logistic for classes: C · weighted
        log-loss + ‖coef‖² / 2. No penalty falls on the intercept.
    strengths
        C or alpha, one number or (fit,).
    """
    labels = np.atleast_2d(np.asarray(truth, dtype=np.float64))
    several = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
    fits = max(len(labels), len(several))
    labels = np.broadcast_to(labels, (fits, labels.shape[1]))
    several = np.broadcast_to(several, (fits,))
    if kind == "regression":
        return _ridge(x, labels, weight, several)
    weights = np.broadcast_to(np.atleast_2d(weight), labels.shape)
    size = max(1, AT_A_TIME // (x.shape[1] + 1) ** 2)
    parts = [
        _logistic(x, labels[rows], weights[rows], several[rows])
        for rows in (slice(start, start + size) for start in range(0, fits, size))
    ]
    return Layers(
        np.concatenate([part.coef for part in parts]),
        np.concatenate([part.intercept for part in parts]),
    )


def _ridge(x: Floats, truth: Floats, weight: Floats, alpha: Floats) -> Layers:
    share = weight / weight.sum()
    centre, means = share @ x, truth @ share
    around = x - centre
    weighted = around.T * weight
    values, axes = np.linalg.eigh(weighted @ around)
    along = axes.T @ (weighted @ (truth - means[:, None]).T)
    coef: Floats = (axes @ (along / (values[:, None].clip(min=0) + alpha))).T
    return Layers(coef, means - coef @ centre)


def _logistic(x: Floats, truth: Floats, weight: Floats, c: Floats) -> Layers:
    """Fit by Newton's method from zero, steps halved where they would lead uphill."""
    design = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.ones(design.shape[1])
    penalty[-1] = 0
    loud = weight * c[:, None]
    coef = np.zeros((len(truth), design.shape[1]))
    value = np.zeros(truth.shape)
    loss = _loss(value, truth, loud, coef, penalty)
    left = np.arange(len(truth))
    for _ in range(ROUNDS):
        probability = expit(value[left])
        curve = loud[left] * probability * (1 - probability)
        second = (design.T * curve[:, None, :]) @ design
        diagonal = np.arange(design.shape[1])
        second[:, diagonal, diagonal] += penalty
        first = (loud[left] * (probability - truth[left])) @ design + penalty * coef[left]
        # With hardly any curvature left the intercept has no unique step; a trifle gives it one.
        second[:, -1, -1] += 1e-12 * loud[left].sum(axis=1)
        step = np.linalg.solve(second, first[:, :, None])[:, :, 0]
        far = step @ design.T
        size = np.ones((len(left), 1))
        for _ in range(HALVINGS):
            moved = value[left] - size * far
            tried = _loss(moved, truth[left], loud[left], coef[left] - size * step, penalty)
            uphill = tried > loss[left] + 1e-12 * np.abs(loss[left])
            if not uphill.any():
                break
            size[uphill] /= 2
        coef[left] -= size * step
        value[left], loss[left] = moved, tried
        left = left[np.abs(size * far).max(axis=1) > CONVERGED]
        if not len(left):
            break
    return Layers(coef[:, :-1], coef[:, -1])


def _loss(value: Floats, truth: Floats, loud: Floats, coef: Floats, penalty: Floats) -> Floats:
    """Return C · weighted log-loss + ‖coef‖² / 2, (fit,)."""
    each = np.logaddexp(0, value) - truth * value
    total: Floats = (loud * each).sum(axis=1) + 0.5 * (penalty * coef**2).sum(axis=1)
    return total
