"""A probe's figures with their intervals, each by the method that covers.

What no method of known coverage gives an interval, in cross-validation or for few subjects, stands
as a figure alone.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.auc_intervals import auc_difference, auc_interval
from pipeline.metrics.bootstrap import intervals_over_draws, subject_weights
from pipeline.metrics.calibration_intervals import calibration_figures, effect_size
from pipeline.metrics.intervals import (
    estimate,
    mean_interval,
    paired_difference,
    refit_inflation,
    share_interval,
    subject_shares,
    without_interval,
)
from pipeline.metrics.prediction_scores import (
    RANKS,
    THRESHOLD,
    classification_scores,
    gap_closed,
    regression_scores,
)
from schemas.metrics import Estimate, Prediction

Floats = NDArray[np.float64]
Folds = NDArray[np.intp]

BOOTSTRAP_SUBJECTS = 40
"""Fewest subjects whose PR-AUC, F1, MCC, calibration error, R², r and closed gap have one:
resampled, they are covered by 93 % from here on, by 80 to 90 % below."""


def probe_estimates(
    truth: Floats,
    scores: Mapping[str, Floats],
    subjects: NDArray[np.str_],
    kind: Prediction,
    *,
    fold: Folds | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Return {feature set: {metric: Estimate}}, every subject counted once.

    `scores` and `fold` are (repeat, scan); a figure is its mean over the repeats. With `fold` they
    are those of cross-validation, whose fits vary too. Undefined figures are left out. `mae_gain`
    is how much less the MAE is than that of `chance`.
    """
    shares = subject_shares(subjects)[None]
    resampled = fold is None and len(np.unique(subjects)) >= BOOTSTRAP_SUBJECTS
    weights = shares
    if resampled:
        weights = subject_weights(subjects, draws=draws, seed=seed) * shares
    over_draws = {
        name: _over_draws(truth, repeats, weights, kind, fold) for name, repeats in scores.items()
    }
    if kind == "regression" and "chance" in over_draws:
        del over_draws["chance"]["r"]  # of constants, which differ by fold alone
    if kind == "regression" and {"chance", "oracle"} <= over_draws.keys():
        chance, oracle = (over_draws[name]["mae"] for name in ("chance", "oracle"))
        for name in over_draws.keys() - {"chance", "oracle"}:
            gap = gap_closed(over_draws[name]["mae"], chance, oracle)
            over_draws[name]["gap_closed"] = gap
    estimates = {}
    for name, repeats in scores.items():
        known = _known(truth, repeats, subjects, kind, fold)
        if kind == "regression" and "chance" in scores and name != "chance":
            guess = np.abs(scores["chance"] - truth).mean(axis=0)
            own = np.abs(repeats - truth).mean(axis=0)
            known["mae_gain"] = paired_difference(guess, own, subjects, inflation=_inflation(fold))
        estimates[name] = _merged(over_draws[name], known, len(np.unique(subjects)), resampled)
    return estimates


def probe_differences(
    truth: Floats,
    scores: Mapping[str, Floats],
    subjects: NDArray[np.str_],
    kind: Prediction,
    *,
    first: str,
    fold: Folds | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Return {rival: {metric: Estimate}}: ROC-AUC or MAE of `first` minus that of each rival.

    Paired: on the same scans and folds. Below 0 is better for MAE, above 0 for ROC-AUC.
    """
    return {
        name: paired_figures(truth, scores[first], repeats, subjects, kind, fold)
        for name, repeats in scores.items()
        if name not in (first, "chance")
    }


def paired_figures(
    truth: Floats,
    first: Floats,
    second: Floats,
    subjects: NDArray[np.str_],
    kind: Prediction,
    fold: Folds | None,
) -> dict[str, Estimate]:
    """Return ROC-AUC or MAE of the first scores (repeat, scan) minus that of the second."""
    if kind == "classification":
        return {"roc_auc": auc_difference(truth, first, second, subjects, fold)}
    own, other = (np.abs(s - truth).mean(axis=0) for s in (first, second))
    return {"mae": paired_difference(own, other, subjects, inflation=_inflation(fold))}


def _over_draws(
    truth: Floats, repeats: Floats, weights: Floats, kind: Prediction, fold: Folds | None
) -> dict[str, Floats]:
    each = [
        classification_scores(truth, score, weights, None if fold is None else fold[repeat])
        if kind == "classification"
        else regression_scores(truth, score, weights)
        for repeat, score in enumerate(repeats)
    ]
    return {metric: np.mean([one[metric] for one in each], axis=0) for metric in each[0]}


def _known(
    truth: Floats, repeats: Floats, subjects: NDArray[np.str_], kind: Prediction, fold: Folds | None
) -> dict[str, Estimate]:
    """Return the figures that have an interval of their own."""
    inflation = _inflation(fold)
    if kind == "regression":
        error = repeats - truth
        size = np.abs(error).mean(axis=0)
        mae = mean_interval(size, subjects, inflation=inflation, least=0)
        squared = np.square(error).mean(axis=0)
        squares = mean_interval(squared, subjects, inflation=inflation, least=0)
        lines = calibration_figures(truth, repeats, subjects, kind, refitted=fold is not None)
        return {"mae": mae} | ({} if len(repeats) > 1 else {"rmse": _root(squares)}) | lines
    found = {}
    if len(np.unique(truth)) > 1:
        found["roc_auc"] = auc_interval(truth, repeats, subjects, fold)
    right = ((repeats >= THRESHOLD) == (truth == 1)).mean(axis=0)
    found["accuracy"] = share_interval(right, subjects, inflation=inflation)
    brier = np.square(repeats - truth).mean(axis=0)
    found["brier"] = mean_interval(brier, subjects, inflation=inflation, least=0)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        own = truth == label
        if own.any():
            found[name] = share_interval(right[own], subjects[own], inflation=inflation)
    apart = effect_size(found["roc_auc"]) if "roc_auc" in found else None
    found |= {} if apart is None else {"effect_size": apart}
    found |= calibration_figures(truth, repeats, subjects, kind, refitted=fold is not None)
    if {"sensitivity", "specificity"} <= found.keys():
        parts = (found["sensitivity"], found["specificity"])
        found["balanced_accuracy"] = half_sum(*parts, len(np.unique(subjects)))
    return found


def half_sum(one: Estimate, other: Estimate, subjects: int) -> Estimate:
    """Return the mean of two independent shares (Newcombe 1998: their reaches add in squares)."""
    value = (one.value + other.value) / 2
    if one.interval is None or other.interval is None:
        return without_interval(value, subjects)
    below, above = (
        np.hypot(one.value - one.interval[end], other.value - other.interval[end]) / 2
        for end in (0, 1)
    )
    return estimate(value, value - below, value + above, subjects, "share")


def _root(squares: Estimate) -> Estimate:
    value = float(np.sqrt(squares.value))
    if squares.interval is None:
        return without_interval(value, squares.subjects)
    low, high = np.sqrt(np.maximum(squares.interval, 0))
    return estimate(value, low, high, squares.subjects, "hall")


def _merged(
    over_draws: Mapping[str, Floats], known: Mapping[str, Estimate], subjects: int, resampled: bool
) -> dict[str, Estimate]:
    """Return every figure once: with its own interval, with a resampled one, or with none.

    The value is that of all scans with subjects' weights, in the order of the tables.
    """
    drawn = intervals_over_draws(over_draws, subjects=subjects) if resampled else {}
    found: dict[str, Estimate] = {}
    for metric, values in over_draws.items():
        value = float(values[0])
        if not np.isfinite(value):
            continue
        one = known.get(metric, drawn.get(metric))
        few = metric in RANKS and "roc_auc" in known and known["roc_auc"].interval_method == "few"
        found[metric] = without_interval(value, subjects, few=few) if one is None else one
    return found | {name: one for name, one in known.items() if name not in over_draws}


def _inflation(fold: Folds | None) -> float:
    return 1.0 if fold is None else refit_inflation(max(2, len(np.unique(fold[0]))))
