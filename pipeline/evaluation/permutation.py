"""How often a probe finds as much in labels that mean nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.compute import seed_from
from pipeline.evaluation.bootstrap import Rows
from pipeline.evaluation.linear import Kind, fit_linear
from pipeline.evaluation.scores import classification_scores, regression_scores

Floats = NDArray[np.float64]


def permutation_p(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[np.str_],
    kind: Kind,
    *,
    splits: Sequence[tuple[Rows, Rows]],
    strengths: Sequence[float],
    permutations: int,
    seed: int,
) -> float:
    """Return the p-value of ROC-AUC or MAE: (1 + as good or better) / (1 + permutations).

    Each permutation hands every subject the label of another, whole, among those fitted on and
    among those judged, and refits the linear probe at the strengths picked on the true labels
    (Ojala & Garriga 2010, test 1).
    """
    observed = _figure(features, truth, subjects, kind, splits, strengths)
    generator = np.random.default_rng(seed_from("permutation", seed))
    groups = _groups(splits)
    better = 0
    for _ in range(permutations):
        shuffled = truth.copy()
        for rows in groups:
            shuffled[rows] = _permuted(truth[rows], subjects[rows], generator)
        better += _figure(features, shuffled, subjects, kind, splits, strengths) >= observed
    return (1 + better) / (1 + permutations)


def _groups(splits: Sequence[tuple[Rows, Rows]]) -> list[Rows]:
    """Return the sets of rows within which labels are exchanged."""
    if len(splits) == 1:
        return list(splits[0])
    return [np.unique(np.concatenate([rows for split in splits for rows in split]))]


def _permuted(truth: Floats, subjects: NDArray[np.str_], generator: np.random.Generator) -> Floats:
    _, first, inverse = np.unique(subjects, return_index=True, return_inverse=True)
    shuffled: Floats = truth[first][generator.permutation(len(first))][inverse]
    return shuffled


def _figure(
    features: NDArray[np.floating],
    truth: Floats,
    subjects: NDArray[np.str_],
    kind: Kind,
    splits: Sequence[tuple[Rows, Rows]],
    strengths: Sequence[float],
) -> float:
    """Return ROC-AUC within folds, or the negative MAE: more is better."""
    scores, judged, folds = [], [], []
    for number, ((fit, held_out), strength) in enumerate(zip(splits, strengths, strict=True)):
        if kind == "classification" and len(np.unique(truth[fit])) < 2:
            return 0.5
        probe = fit_linear(
            features[fit], truth[fit], subjects[fit], kind, folds=2, seed=0, strength=strength
        )
        scores.append(probe.score(features[held_out]))
        judged.append(truth[held_out])
        folds.append(np.full(len(held_out), number))
    known, score = np.concatenate(judged), np.concatenate(scores)
    if kind == "regression":
        return -float(regression_scores(known, score)["mae"][0])
    auc = float(classification_scores(known, score, fold=np.concatenate(folds))["roc_auc"][0])
    return auc if np.isfinite(auc) else 0.5
