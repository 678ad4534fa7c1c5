"""Heads that read a label from features: linear layer, nearest neighbours, small perceptron."""

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
    LinearProbe,
    Space,
    balanced,
    fit_chance,
    fit_linear,
    grouped_folds,
    pick_strength,
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


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Features of scans, and the label to be read from them."""

    features: NDArray[np.floating]
    """(scan, dim)."""
    truth: Floats
    """(scan,): the number, or class 0 or 1."""
    subjects: NDArray[Any]
    """(scan,): whose scan each is."""
    kind: Prediction

    def take(self, rows: NDArray[np.intp]) -> "LabelledFeatures":
        """Return these scans alone."""
        return LabelledFeatures(
            self.features[rows], self.truth[rows], self.subjects[rows], self.kind
        )

    @property
    def doubles(self) -> Floats:
        """Return the features in double precision."""
        return np.asarray(self.features, dtype=np.float64)


Head = Callable[[LabelledFeatures, ProbeParams], Probe]
"""Fits a probe."""


def chance_head(data: LabelledFeatures, _params: ProbeParams) -> Probe:
    """Fit the majority class, or the median."""
    return fit_chance(data.truth, data.kind, data.subjects)


def linear_head(data: LabelledFeatures, params: ProbeParams) -> Probe:
    """Fit a logistic or ridge layer, its strength picked by inner cross-validation."""
    return _fit_linear(data, params, scaled=True)


def unscaled_head(data: LabelledFeatures, params: ProbeParams) -> Probe:
    """Fit the same layer on features that keep their own spreads: unwhitened components."""
    return _fit_linear(data, params, scaled=False)


def _fit_linear(data: LabelledFeatures, params: ProbeParams, *, scaled: bool) -> Probe:
    return fit_linear(
        data.features,
        data.truth,
        data.subjects,
        data.kind,
        folds=params.inner_folds,
        seed=params.seed,
        scaled=scaled,
    )


def code_head(data: LabelledFeatures, params: ProbeParams) -> LinearProbe:
    """Fit a layer on codes (scan, dim), scaled as inner folds of the fitting scans prefer.

    Amounts of principal modes fall off in size. With their own spreads, the penalty spares the
    first ones, as ridge regression on whole images does; standardised, the last ones, which few
    people determine, count as much. Which is better depends on the label.
    """
    options: dict[str, Any] = {"folds": params.inner_folds, "seed": params.seed}
    about = (data.truth, data.subjects, data.kind)
    tried = []
    for scaled in (False, True):
        strength, score = pick_strength(data.doubles, *about, scaled=scaled, **options)
        tried.append((score, strength, scaled))
    _, strength, scaled = max(tried, key=lambda one: one[0])
    return fit_linear(data.features, *about, strength=strength, scaled=scaled, **options)


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


def knn_head(data: LabelledFeatures, params: ProbeParams) -> Probe:
    """Fit k nearest neighbours (weighted by 1 / distance).

    Inner folds of the fitting scans pick k, and whether features are standardised or keep their own
    sizes, as amounts of principal modes should. The neighbours are scans: here a subject with more
    visits has more of them. Not scikit-learn's GridSearchCV: subjects weigh alike in the scaling of
    features and in the score, and a k beyond the scans of a fold is judged on the other folds.
    """
    losses: dict[tuple[bool, int], list[float]] = {}
    folds = grouped_folds(
        data.truth, data.subjects, data.kind, folds=params.inner_folds, seed=params.seed
    )
    for fit_rows, held_out_rows in folds:
        fit, held_out = data.take(fit_rows), data.take(held_out_rows)
        share = subject_shares(held_out.subjects)
        grid = [k for k in K_GRID if k <= len(fit_rows)]
        for scaled in (True, False):
            probe = _neighbours(fit, grid[-1], scaled=scaled)
            far, which = probe.model.kneighbors(probe.space.reduce(held_out.doubles))
            for k in grid:
                scores = nearer_count_more(far[:, :k], fit.truth[which[:, :k]])
                squares = np.square(scores - held_out.truth)
                losses.setdefault((scaled, k), []).append(float(np.average(squares, weights=share)))
    means = {how: np.mean(values) for how, values in losses.items()}
    scaled, k = min(means, key=lambda how: means[how]) if means else (True, min(3, len(data.truth)))
    return _neighbours(data, k, scaled=scaled)


def nearer_count_more(distances: Floats, truth: Floats) -> Floats:
    """Return means of neighbours' truth, both (scan, k), weighted by 1 / distance.

    Those at distance 0, where there are any, count alone.
    """
    same = distances == 0
    weight = np.where(same.any(axis=1, keepdims=True), same, 1 / np.where(same, 1, distances))
    return np.asarray(np.average(truth, axis=1, weights=weight))


def _neighbours(data: LabelledFeatures, k: int, *, scaled: bool) -> _Standardised:
    x = data.doubles
    space = Space.of(x, subject_weight(data.subjects), scaled=scaled)
    classify = data.kind == "classification"
    model = (KNeighborsClassifier if classify else KNeighborsRegressor)(k, weights="distance")
    return _Standardised(data.kind, space, model.fit(space.reduce(x), data.truth))


def mlp_head(data: LabelledFeatures, params: ProbeParams) -> Probe:
    """Fit a perceptron with one hidden layer of 16 units; classes weighted equally."""
    truth, weight = data.truth, subject_weight(data.subjects)
    space = Space.of(data.doubles, weight)
    x = space.reduce(data.doubles)
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (HIDDEN_UNITS,),
        "alpha": MLP_PENALTY,
        "solver": "lbfgs",
        "max_iter": MLP_ITERATIONS,
        "random_state": params.seed % 2**32,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if data.kind == "classification":
            weight = balanced(weight, truth)
            model = MLPClassifier(**settings).fit(x, truth, sample_weight=weight)
            return _Standardised(data.kind, space, model)
        shift, scale = float(truth.mean()), float(truth.std())
        model = MLPRegressor(**settings).fit(x, (truth - shift) / scale, sample_weight=weight)
    return _Standardised(data.kind, space, model, (shift, scale))


HEADS: dict[str, Head] = {"knn": knn_head, "mlp": mlp_head}
