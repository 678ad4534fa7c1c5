"""Permutation test: how often a probe is as good on labels that mean nothing.

What is exchanged are whole subjects, each with the series of its labels over its visits. Where a
label never changes within a subject (sex), any subject may get any other's. Where it does (age,
converters), subjects with as many scans exchange their series, in the order of their visits; the
labels of one subject's visits are not shuffled among each other, since time orders them.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.metrics.auc_intervals import rank
from pipeline.metrics.bootstrap import Rows
from pipeline.metrics.intervals import subject_means
from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.layers.fits import fit_layers
from pipeline.probes.linear import Space, balanced, subject_weight
from pipeline.runtime.digests import seed_from

Floats = NDArray[np.float64]

ROUNDING = 1e-9
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
    generator = np.random.default_rng(seed_from("permutation", seed))
    labels = np.tile(truth, (1 + permutations, 1))
    exchanging = [(rows, exchangeable(truth[rows], subjects[rows])) for rows in groups]
    for exchanged in labels[1:]:
        for rows, who in exchanging:
            exchanged[rows] = permuted(truth[rows], who, generator)
    observed, *others = _goodness(data, labels, splits, strengths)
    # The same labels again are as good, whatever the last bits say.
    better = np.count_nonzero(np.array(others) >= observed - ROUNDING * abs(observed))
    return float((1 + better) / (1 + permutations))


def _groups(splits: Sequence[tuple[Rows, Rows]]) -> list[Rows]:
    """Return the sets of rows within which labels are exchanged; the last holds those judged."""
    if len(splits) == 1:
        return list(splits[0])
    return [np.unique(np.concatenate([rows for split in splits for rows in split]))]


def permuted(
    truth: Floats, exchanging: Sequence[list[Rows]], generator: np.random.Generator
) -> Floats:
    """Return labels (scan,) after subjects have exchanged theirs, as `exchangeable` allows."""
    shuffled = truth.copy()
    for rows_of in exchanging:
        order = generator.permutation(len(rows_of))
        for receiver, giver in enumerate(order):
            series, receiving = truth[rows_of[giver]], rows_of[receiver]
            # Of another length only where the label never changes: any of it will do.
            shuffled[receiving] = series if len(series) == len(receiving) else series[0]
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
    data: LabelledFeatures,
    labels: Floats,
    splits: Sequence[tuple[Rows, Rows]],
    strengths: Sequence[float],
) -> list[float]:
    """Return ROC-AUC within folds, or the negative MAE, subjects counted once: more is better.

    One number for each labelling (labelling, scan); 0.5 where one has no two classes to fit on.
    """
    whole = np.ones(len(labels), dtype=bool)
    if data.kind == "classification":
        for fit_rows, _ in splits:
            whole &= np.ptp(labels[:, fit_rows], axis=1) > 0
    score = np.concatenate(
        [
            refitted_scores(data, labels[whole], fit_rows, held_out, strength)
            for (fit_rows, held_out), strength in zip(splits, strengths, strict=True)
        ],
        axis=1,
    )
    rows = np.concatenate([held_out for _, held_out in splits])
    folds = np.repeat(np.arange(len(splits)), [len(held_out) for _, held_out in splits])
    subjects, truth = data.subjects[rows], labels[whole][:, rows]
    goodness = np.full(len(labels), 0.5)
    if data.kind == "regression":
        goodness[whole] = -subject_means(np.abs(truth - score), subjects).mean(axis=1)
    else:
        goodness[whole] = [
            _area(of_labelling, own, subjects, folds)
            for of_labelling, own in zip(truth, score, strict=True)
        ]
    return [float(value) for value in goodness]


def _area(truth: Floats, score: Floats, subjects: NDArray[np.str_], folds: Rows) -> float:
    if len(np.unique(truth)) < 2:
        return 0.5
    area = float(rank(truth == 1, score, subjects, folds).auc)
    return area if np.isfinite(area) else 0.5


def refitted_scores(
    data: LabelledFeatures, labels: Floats, fit_rows: Rows, held_out: Rows, strength: float
) -> Floats:
    """Return scores (labelling, scan) of held-out scans by the linear layer of each labelling."""
    x, weight = data.doubles[fit_rows], subject_weight(data.subjects[fit_rows])
    space = Space.of(x, weight, principal=False)
    truth = labels[:, fit_rows]
    how = balanced(weight, truth) if data.kind == "classification" else weight
    layers = fit_layers(space.reduce(x), truth, how, data.kind, strength)
    value = layers.value(space.reduce(data.doubles[held_out]))
    return np.asarray(expit(value)) if data.kind == "classification" else value
