"""One standardised linear layer, its strength picked by cross-validation over subjects."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Kind = Literal["classification", "regression"]

C_GRID = np.logspace(-4, 1, 6)
"""Inverse strengths of the logistic penalty; features are standardised."""
ALPHA_GRID = np.logspace(-1, 5, 7)
"""Strengths of the ridge penalty; features are standardised."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Every number of a fitted probe."""

    kind: Kind
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


def fit_chance(truth: Floats, kind: Kind) -> LinearProbe:
    """Return the probe that knows the fitting labels alone: the majority class, or the mean."""
    empty = np.empty(0)
    share = float(truth.mean())
    intercept = float(logit(share)) if kind == "classification" else share
    return LinearProbe(kind, empty, empty, empty, intercept, None)


def fit_linear(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[Any],
    kind: Kind,
    *,
    folds: int,
    seed: int,
) -> LinearProbe:
    """Fit a logistic (classes weighted equally) or ridge layer on standardised features.

    C or alpha is the one with the best mean score over inner folds of subjects: log-likelihood
    with equal class weights, or squared error. The middle of the grid where no fold can be made.
    """
    classify = kind == "classification"
    layer = LogisticRegression(class_weight="balanced", max_iter=5000) if classify else Ridge()
    grid = {"layer__C": C_GRID} if classify else {"layer__alpha": ALPHA_GRID}
    (parameter, strengths), *_ = grid.items()
    model = Pipeline([("scaler", StandardScaler()), ("layer", layer)])
    x = np.asarray(features, dtype=np.float64)
    splits = list(grouped_folds(truth, subjects, kind, folds=folds, seed=seed))
    if splits:
        scoring = _balanced_log_likelihood if classify else "neg_mean_squared_error"
        search = GridSearchCV(model, grid, cv=splits, scoring=scoring)
        model = search.fit(x, truth).best_estimator_
        strength = float(search.best_params_[parameter])
    else:
        strength = float(strengths[len(strengths) // 2])
        model.set_params(**{parameter: strength}).fit(x, truth)
    scaler, layer = model["scaler"], model["layer"]
    return LinearProbe(
        kind,
        scaler.mean_,
        scaler.scale_,
        np.ravel(layer.coef_),
        float(np.ravel(layer.intercept_)[0]),
        strength,
    )


def grouped_folds(
    truth: Floats, subjects: NDArray[Any], kind: Kind, *, folds: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """Yield (fitting rows, held-out rows); no subject on both sides, classes spread evenly.

    There are at most as many folds as subjects (of the rarer class). Folds that would leave one
    class only to fit on are not yielded.
    """
    if kind == "classification":
        counts = [len(np.unique(subjects[truth == label])) for label in (0, 1)]
    else:
        counts = [len(np.unique(subjects))]
    num_folds = min(folds, *counts)
    if num_folds < 2:
        return
    splitter = StratifiedGroupKFold if kind == "classification" else GroupKFold
    splits = splitter(num_folds, shuffle=True, random_state=seed % 2**32)
    for fit, held_out in splits.split(np.zeros(len(truth)), truth, subjects):
        if len(held_out) and (kind == "regression" or len(np.unique(truth[fit])) == 2):
            yield fit, held_out


def _balanced_log_likelihood(model: Pipeline, x: Floats, truth: Floats) -> float:
    probability = np.clip(model.predict_proba(x)[:, 1], 1e-12, 1 - 1e-12)
    likelihood = np.where(truth == 1, np.log(probability), np.log1p(-probability))
    return float(np.mean([likelihood[truth == label].mean() for label in np.unique(truth)]))
