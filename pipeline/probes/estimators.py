"""What reads a label from features: a linear layer, nearest neighbours, a small perceptron."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from pipeline.metrics.intervals import subject_shares
from pipeline.probes.linear import (
    Space,
    balanced,
    fit_chance,
    fit_linear,
    grouped_folds,
    subject_weight,
)
from schemas.evaluation import ProbeParams
from schemas.metrics import Prediction

Floats = NDArray[np.float64]

K_GRID = (1, 3, 5, 9, 15)
HIDDEN_UNITS = 16
MLP_PENALTY = 1.0
MLP_ITERATIONS = 200


class Probe(Protocol):
    """A fitted probe."""

    def score(self, features: NDArray[np.floating]) -> Floats:
        """Return the probability of the positive class, or the predicted value, (scan,)."""
        ...

    def numbers(self) -> list[Floats]:
        """Return every fitted number."""
        ...


Head = Callable[[NDArray[np.floating], Floats, NDArray[Any], Prediction, ProbeParams], Probe]
"""fit(features (scan, dim), truth (scan,), subjects (scan,), kind, params)."""


def chance_head(
    features: NDArray[np.floating],  # noqa: ARG001 (chance knows the labels alone)
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    params: ProbeParams,  # noqa: ARG001
) -> Probe:
    """Fit the majority class, or the median."""
    return fit_chance(truth, kind, subjects)


def linear_head(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    params: ProbeParams,
) -> Probe:
    """Fit a logistic or ridge layer, its strength picked by inner cross-validation."""
    return fit_linear(features, truth, subjects, kind, folds=params.inner_folds, seed=params.seed)


def unscaled_head(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    params: ProbeParams,
) -> Probe:
    """Fit the same layer on features that keep their own spreads: unwhitened components."""
    return fit_linear(
        features, truth, subjects, kind, folds=params.inner_folds, seed=params.seed, scaled=False
    )


@dataclass(frozen=True, slots=True)
class _Standardised:
    """A scikit-learn model on standardised features."""

    kind: Prediction
    space: Space
    model: Any
    unit: tuple[float, float] = (0.0, 1.0)
    """Shift and scale of a regressed truth."""

    def score(self, features: NDArray[np.floating]) -> Floats:
        x = self.space.reduce(np.asarray(features, dtype=np.float64))
        if self.kind == "classification":
            return np.asarray(self.model.predict_proba(x)[:, 1], dtype=np.float64)
        shift, scale = self.unit
        return np.asarray(self.model.predict(x), dtype=np.float64) * scale + shift

    def numbers(self) -> list[Floats]:
        inner = getattr(self.model, "coefs_", None)
        if inner is None:
            inner = [self.model._fit_X, np.array([self.model.n_neighbors])]
        return [self.space.mean, self.space.std, np.array(self.unit), *inner]


def knn_head(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    params: ProbeParams,
) -> Probe:
    """Fit k nearest neighbours (weighted by 1 / distance), k picked by inner cross-validation.

    The neighbours are scans: here a subject with more visits has more of them.
    """
    x = np.asarray(features, dtype=np.float64)
    loss: dict[int, list[float]] = {k: [] for k in K_GRID}
    folds = grouped_folds(truth, subjects, kind, folds=params.inner_folds, seed=params.seed)
    for fit, held_out in folds:
        for k in loss:
            if k <= len(fit):
                own = subjects[fit]
                guess = _neighbours(x[fit], truth[fit], own, kind, k).score(x[held_out])
                share = subject_shares(subjects[held_out])
                squares = np.square(guess - truth[held_out])
                loss[k].append(float(np.average(squares, weights=share)))
    judged = {k: np.mean(values) for k, values in loss.items() if values}
    k = min(judged, key=lambda k: judged[k]) if judged else min(3, len(x))
    return _neighbours(x, truth, subjects, kind, k)


def _neighbours(
    x: Floats, truth: Floats, subjects: NDArray[Any], kind: Prediction, k: int
) -> _Standardised:
    space = Space.of(x, subject_weight(subjects))
    classify = kind == "classification"
    model = (KNeighborsClassifier if classify else KNeighborsRegressor)(k, weights="distance")
    return _Standardised(kind, space, model.fit(space.reduce(x), truth))


def mlp_head(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Prediction,
    params: ProbeParams,
) -> Probe:
    """Fit a perceptron with one hidden layer of 16 units; classes weighted equally."""
    x = np.asarray(features, dtype=np.float64)
    weight = subject_weight(subjects)
    space = Space.of(x, weight)
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (HIDDEN_UNITS,),
        "alpha": MLP_PENALTY,
        "solver": "lbfgs",
        "max_iter": MLP_ITERATIONS,
        "random_state": params.seed % 2**32,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "classification":
            weight = balanced(weight, truth)
            model = MLPClassifier(**settings).fit(space.reduce(x), truth, sample_weight=weight)
            return _Standardised(kind, space, model)
        shift, scale = float(truth.mean()), float(truth.std())
        wanted = (truth - shift) / scale
        model = MLPRegressor(**settings).fit(space.reduce(x), wanted, sample_weight=weight)
    return _Standardised(kind, space, model, (shift, scale))


HEADS: dict[str, Head] = {"knn": knn_head, "mlp": mlp_head}
