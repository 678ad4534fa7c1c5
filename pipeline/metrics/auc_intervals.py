"""ROC-AUC with an interval that holds with few subjects, several visits each, or an AUC of 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from pipeline.metrics.intervals import (
    NORMAL,
    TAIL,
    estimate,
    exact_limit,
    subject_shares,
    without_interval,
)
from schemas.metrics import FEWEST_REFITTED, FEWEST_SUBJECTS, Estimate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REFITS = 0.6
"""What fitting anew adds to the variance of a cross-validated ROC-AUC of 0.5, as a share; less
towards 0 and 1 (times 4 AUC (1 - AUC)). Picked by simulation: without it, 87 % are covered."""
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Ranking:
    """Areas under ROC curves, and the influence of each subject on them."""

    auc: Floats
    """(...)."""
    variance: Floats
    """(...), over subjects (Obuchowski 1997: DeLong's, with scans of a subject together)."""
    effective: tuple[Floats, Floats]
    """Independent positives and negatives that the scans amount to, each (...): between the number
    of subjects and, where scans of a subject differ as those of strangers do, of scans."""
    subjects: tuple[int, int]
    """With positive scans, with negative scans."""
    influence: Floats
    """(..., subject); `variance` is the sum of its squares."""


def rank(
    positive: Bools, score: Floats, subjects: ArrayLike, fold: NDArray[np.intp] | None = None
) -> Ranking:
    """Return the ROC-AUC of scores (..., scan), every subject counted once; ties count half.

    A subject with scans of both classes counts in both by its scans' share. With `fold` (scan,)
    only scans of one fold are compared.
    """
    names, inverse = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    weight = subject_shares(subjects)
    auc, by_scan = _influence(positive, score, weight, fold)
    whose = np.zeros((len(inverse), len(names)))
    whose[np.arange(len(inverse)), inverse] = 1
    total, independent, counts, shares = 0.0, 0.0, [], []
    for of_class in (positive, ~positive):
        count = len(np.unique(inverse[of_class]))
        correction = count / max(count - 1, 1)
        part = by_scan * of_class
        total = total + np.sqrt(correction) * (part @ whose)
        independent = independent + correction * (part**2).sum(axis=-1)
        counts.append(count)
        by_subject = (weight * of_class) @ whose
        shares.append((_effective(by_subject), _effective(weight * of_class)))
    influence = np.asarray(total)
    variance = (influence**2).sum(axis=-1)
    design = np.divide(variance, independent, out=np.ones_like(variance), where=independent > 0)
    effective = [scans / np.clip(design, 1, scans / people) for people, scans in shares]
    return Ranking(auc, variance, (effective[0], effective[1]), (counts[0], counts[1]), influence)


def _effective(weight: Floats) -> float:
    return float(weight.sum() ** 2 / (weight**2).sum())


def _influence(
    positive: Bools, score: Floats, weight: Floats, fold: NDArray[np.intp] | None
) -> tuple[Floats, Floats]:
    """Return areas (...) and how far each scan moves them, (..., scan)."""
    parts = [np.arange(len(positive))] if fold is None else _rows_of(fold)
    wins, pairs = np.zeros(score.shape[:-1]), 0.0
    placed, against = np.zeros(score.shape), np.zeros(len(positive))
    for rows in parts:
        ones, zeros = rows[positive[rows]], rows[~positive[rows]]
        if not len(ones) or not len(zeros):
            continue
        first, second = score[..., ones][..., :, None], score[..., zeros][..., None, :]
        better = (first > second) + 0.5 * (first == second)
        placed[..., ones] = better @ weight[zeros]
        placed[..., zeros] = np.einsum("p,...pq->...q", weight[ones], better)
        against[ones], against[zeros] = weight[zeros].sum(), weight[ones].sum()
        wins = wins + placed[..., ones] @ weight[ones]
        pairs += weight[ones].sum() * weight[zeros].sum()
    if not pairs:
        return np.full(wins.shape, np.nan), placed
    auc = wins / pairs
    return auc, weight * (placed - against * auc[..., None]) / pairs


def _rows_of(fold: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(fold == number) for number in np.unique(fold)]


def auc_limits(ranking: Ranking, *, refits: bool = False) -> tuple[Floats, Floats]:
    """Return the 95 % limits of ROC-AUCs, each (...).

    Newcombe's score interval (2006, Statistics in Medicine 25, method 5): the limits are the AUCs
    whose own variance, by Hanley and McNeil, puts the figure 1.96 standard errors off. That
    variance is of the effective numbers of subjects, and larger where the subjects seen vary more
    than it says. At 0 and 1 the exact limits (Clopper–Pearson) of as many trials as there are
    subjects of the rarer class. `refits` widens them for figures of cross-validation.
    """
    auc = ranking.auc
    expected = hanley_mcneil(np.clip(auc, 1e-3, 1 - 1e-3), *ranking.effective)
    excess = np.maximum(1.0, ranking.variance / expected)

    def outside(area: Floats) -> Bools:
        more = excess * (1 + refits * REFITS * 4 * area * (1 - area))
        variance = more * hanley_mcneil(area, *ranking.effective)
        return np.asarray((auc - area) ** 2 > NORMAL**2 * variance)

    limits = []
    for end in (0.0, 1.0):
        far, near = np.full_like(auc, end), auc.copy()
        for _ in range(HALVINGS):
            middle = (far + near) / 2
            off = outside(middle)
            far, near = np.where(off, middle, far), np.where(off, near, middle)
        limits.append(near)
    exact = exact_limit(min(ranking.subjects))
    none, full = np.isclose(auc, 0, atol=1e-9), np.isclose(auc, 1, atol=1e-9)
    low = np.where(full, exact, np.where(none, 0.0, limits[0]))
    high = np.where(none, 1 - exact, np.where(full, 1.0, limits[1]))
    return low, high


def hanley_mcneil(area: Floats, positives: ArrayLike, negatives: ArrayLike) -> Floats:
    """Return the variance of a ROC-AUC (Hanley & McNeil 1982), with the two numbers' mean."""
    m, n = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    others = (m + n) / 2 - 1
    spread = 1 + others * (1 - area) / (2 - area) + others * area / (1 + area)
    variance: Floats = area * (1 - area) * spread / (m * n)
    return variance


def auc_interval(
    truth: Floats,
    scores: Floats,
    subjects: NDArray[np.str_],
    fold: NDArray[np.intp] | None = None,
    *,
    refits: bool | None = None,
) -> Estimate:
    """Return ROC-AUC of scores (repeat, scan), the mean over repeats, with its interval.

    Truth is 0 or 1. With `fold` (repeat, scan) scans are compared within folds; the scores are
    those of cross-validation unless `refits` is False. Fewer than FEWEST_SUBJECTS of a class
    (cross-validated: FEWEST_REFITTED) have no interval.

    Raises
    ------
    ValueError
        If a class is missing.
    """
    ranking = mean_ranking(truth, scores, subjects, fold)
    people, value = len(np.unique(subjects)), float(ranking.auc)
    if np.ptp(scores, axis=-1).max() == 0:
        return without_interval(value, people)  # one score for all: 0.5 by construction
    fewest = min(ranking.subjects)
    refitted = fold is not None if refits is None else refits
    if fewest < (FEWEST_REFITTED if refitted else FEWEST_SUBJECTS):
        return without_interval(value, people, few=fewest < FEWEST_SUBJECTS)
    low, high = auc_limits(ranking, refits=refitted)
    return estimate(value, low, high, people, "exact" if low == 0 or high == 1 else "score")


def auc_difference(
    truth: Floats,
    first: Floats,
    second: Floats,
    subjects: NDArray[np.str_],
    fold: NDArray[np.intp] | None = None,
    *,
    refits: bool | None = None,
) -> Estimate:
    """Return first's ROC-AUC minus second's, on the same scans and folds, with its interval.

    Student's t on the subjects' influences. Where they do not vary, as when both are perfect, and
    below FEWEST_REFITTED subjects of a class there is no interval.
    """
    one, other = (mean_ranking(truth, s, subjects, fold) for s in (first, second))
    people, value = len(np.unique(subjects)), float(one.auc - other.auc)
    refitted = fold is not None if refits is None else refits
    low, high = difference_limits(one, other, refits=refitted)
    if min(one.subjects) < FEWEST_REFITTED or low == high:
        return without_interval(value, people)
    return estimate(value, max(low, -1.0), min(high, 1.0), people, "t")


def difference_limits(
    one: Ranking, other: Ranking, *, refits: bool = False
) -> tuple[Floats, Floats]:
    """Return the 95 % limits of differences of ROC-AUCs of the same scans, each (...)."""
    variance = ((one.influence - other.influence) ** 2).sum(axis=-1) * (1 + refits * REFITS)
    reach = t.ppf(1 - TAIL, sum(one.subjects) - 2) * np.sqrt(variance)
    difference = one.auc - other.auc
    return difference - reach, difference + reach


def mean_ranking(
    truth: Floats,
    scores: Floats,
    subjects: NDArray[np.str_],
    fold: NDArray[np.intp] | None,
) -> Ranking:
    """Return the ranking whose AUC and influences are the means over repeats (repeat, scan)."""
    positive = np.asarray(truth) == 1
    if positive.all() or not positive.any():
        raise ValueError("ROC-AUC needs scans of both classes, received one")
    each = [
        rank(positive, score, subjects, None if fold is None else fold[repeat])
        for repeat, score in enumerate(scores)
    ]
    return averaged(each)


def averaged(rankings: Sequence[Ranking]) -> Ranking:
    """Return the ranking whose AUC and influences are the means over repeats of the same scans."""
    influence = np.mean([ranking.influence for ranking in rankings], axis=0)
    positives, negatives = (
        np.mean([ranking.effective[label] for ranking in rankings], axis=0) for label in (0, 1)
    )
    auc = np.mean([ranking.auc for ranking in rankings], axis=0)
    return Ranking(
        np.asarray(auc),
        np.asarray((influence**2).sum(axis=-1)),
        (np.asarray(positives), np.asarray(negatives)),
        rankings[0].subjects,
        influence,
    )
