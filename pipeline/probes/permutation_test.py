"""Permutation test: how often a probe is as good on labels that mean nothing.

What is exchanged are whole subjects, each with the series of its labels over its visits. Where a
label never changes within a subject (sex), any subject may get any other's. Where it does (age,
converters), subjects with as many scans exchange their series, in the order of their visits; the
labels of one subject's visits are not shuffled among each other, since time orders them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.auc_intervals import rank
from pipeline.metrics.bootstrap import Rows
from pipeline.metrics.intervals import subject_means
from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.linear import fit_linear
from pipeline.runtime.digests import seed_from

Floats = NDArray[np.float64]

FEWEST_ARRANGEMENTS = 20
"""With fewer, no p can be below 0.05."""


def permutation_p(
    data: LabelledFeatures,
    *,
    splits: Sequence[tuple[Rows, Rows]],
    strengths: Sequence[float],
    permutations: int,
    seed: int,
) -> float | None:
    """Return the p-value of ROC-AUC or MAE: (1 + as good or better) / (1 + permutations).

    Rows are in the order of visits within a subject. Each permutation exchanges subjects' series
    of labels, among those fitted on and among those judged, and refits the linear probe at the
    strengths picked on the true labels (Ojala & Garriga 2010, test 1). None where fewer than
    FEWEST_ARRANGEMENTS of the judged labels are possible.
    """
    truth, subjects = data.truth, data.subjects
    groups = _groups(splits)
    if arrangements(truth[groups[-1]], subjects[groups[-1]]) < FEWEST_ARRANGEMENTS:
        return None
    observed = _goodness(data, splits, strengths)
    generator = np.random.default_rng(seed_from("permutation", seed))
    better = 0
    for _ in range(permutations):
        exchanged = truth.copy()
        for rows in groups:
            exchanged[rows] = permuted(truth[rows], subjects[rows], generator)
        better += _goodness(replace(data, truth=exchanged), splits, strengths) >= observed
    return (1 + better) / (1 + permutations)


def _groups(splits: Sequence[tuple[Rows, Rows]]) -> list[Rows]:
    """Return the sets of rows within which labels are exchanged; the last holds those judged."""
    if len(splits) == 1:
        return list(splits[0])
    return [np.unique(np.concatenate([rows for split in splits for rows in split]))]


def permuted(truth: Floats, subjects: NDArray[np.str_], generator: np.random.Generator) -> Floats:
    """Return labels (scan,) after subjects have exchanged theirs."""
    shuffled = truth.copy()
    for rows_of in exchangeable(truth, subjects):
        order = generator.permutation(len(rows_of))
        for receiver, giver in enumerate(order):
            series = truth[rows_of[giver]]
            # Of another length only where the label never changes: any of it will do.
            shuffled[rows_of[receiver]] = np.resize(series, len(rows_of[receiver]))
    return shuffled


def exchangeable(truth: Floats, subjects: NDArray[np.str_]) -> list[list[Rows]]:
    """Return groups of subjects that may exchange labels, each as the rows of its subjects."""
    rows_of = [np.flatnonzero(subjects == name) for name in np.unique(subjects)]
    if all(np.ptp(truth[rows]) == 0 for rows in rows_of):
        return [rows_of]
    lengths = sorted({len(rows) for rows in rows_of})
    return [[rows for rows in rows_of if len(rows) == length] for length in lengths]


def arrangements(truth: Floats, subjects: NDArray[np.str_]) -> float:
    """Return how many different labellings exchanging makes; infinite beyond a billion."""
    count = 1.0
    for rows_of in exchangeable(truth, subjects):
        series = [tuple(truth[rows]) for rows in rows_of]
        constant = all(len(set(values)) == 1 for values in series)
        kinds = [values[:1] if constant else values for values in series]
        if len(kinds) > 100:
            return math.inf
        ways = math.factorial(len(kinds))
        for kind in set(kinds):
            ways //= math.factorial(kinds.count(kind))
        count *= ways
        if count > 1e9:
            return math.inf
    return count


def _goodness(
    data: LabelledFeatures, splits: Sequence[tuple[Rows, Rows]], strengths: Sequence[float]
) -> float:
    """Return ROC-AUC within folds, or the negative MAE, subjects counted once: more is better."""
    scores, folds, rows = [], [], []
    for number, ((fit_rows, held_out), strength) in enumerate(zip(splits, strengths, strict=True)):
        fit = data.take(fit_rows)
        if data.kind == "classification" and len(np.unique(fit.truth)) < 2:
            return 0.5
        probe = fit_linear(
            fit.features, fit.truth, fit.subjects, fit.kind, folds=2, seed=0, strength=strength
        )
        scores.append(probe.score(data.features[held_out]))
        folds.append(np.full(len(held_out), number))
        rows.append(held_out)
    judged, score = data.take(np.concatenate(rows)), np.concatenate(scores)
    if data.kind == "regression":
        return -float(subject_means(np.abs(judged.truth - score), judged.subjects).mean())
    if len(np.unique(judged.truth)) < 2:
        return 0.5
    ranks = rank(judged.truth == 1, score, judged.subjects, np.concatenate(folds))
    return float(ranks.auc) if np.isfinite(ranks.auc) else 0.5
