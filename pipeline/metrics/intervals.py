"""Intervals of means, differences, shares and medians over subjects, picked by their coverage.

Two scans of one brain are not two pieces of evidence: every subject counts once, by the mean of
its scans. What each method covers is simulated in
`tests/metrics/test_interval_coverage.py` and, at length, in
`benchmarks/studies/interval_coverage.py`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom, t

from schemas.metrics import FEWEST_REFITTED, FEWEST_SUBJECTS, Estimate, IntervalMethod

Floats = NDArray[np.float64]

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
NORMAL = 1.959964
"""Normal quantile of the upper tail."""


def subject_means(values: ArrayLike, subjects: ArrayLike) -> Floats:
    """Return the mean of each subject's scans, (..., subject), of values (..., scan)."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(
        np.asarray(subjects, dtype=str), return_inverse=True, return_counts=True
    )
    whose = np.zeros((len(inverse), len(counts)))
    whose[np.arange(len(inverse)), inverse] = 1 / counts[inverse]
    means: Floats = array @ whose
    return means


def subject_shares(subjects: ArrayLike) -> Floats:
    """Return weights of scans (scan,) by which every subject counts once in all."""
    _, inverse, counts = np.unique(
        np.asarray(subjects, dtype=str), return_inverse=True, return_counts=True
    )
    shares: Floats = 1.0 / counts[inverse]
    return shares


def mean_limits(means: Floats, *, inflation: ArrayLike = 1.0) -> tuple[Floats, Floats]:
    """Return the 95 % limits of the mean of independent values (..., subject).

    Student's t, its skewness taken out by Hall's cubic transformation (1992, JRSS B 54): absolute
    errors are skewed, and t alone covers 90 % where this covers 93 %. `inflation` multiplies the
    variance, for figures whose fits vary too.
    """
    count = means.shape[-1]
    centre = means.mean(axis=-1)
    spread = means.std(axis=-1)
    cubes = ((means - centre[..., None]) ** 3).mean(axis=-1)
    skew = np.divide(cubes, spread**3, out=np.zeros_like(centre), where=spread > 0)
    skew = np.where(np.abs(skew) < 1e-6, 1e-6, skew)
    error = spread * np.sqrt(count / (count - 1) * np.asarray(inflation))
    reach = float(t.ppf(1 - TAIL, count - 1)) / np.sqrt(count)

    def turned(y: float) -> Floats:
        return np.asarray(3 / skew * (np.cbrt(1 + skew * (y - skew / (6 * count))) - 1))

    return centre - error * turned(reach), centre - error * turned(-reach)


def mean_interval(
    values: ArrayLike, subjects: ArrayLike, *, inflation: float = 1.0, least: float = -np.inf
) -> Estimate:
    """Return the mean over subjects of the means of their scans (scan,), with its interval.

    No limit is below `least`, the lowest that the quantity can be: 0 for an error. Fewer than
    FEWEST_SUBJECTS, or subjects who are all alike, have none; with an `inflation`, which
    cross-validation needs, fewer than 2 FEWEST_REFITTED.

    Raises
    ------
    ValueError
        If there is no row, or a value is NaN.
    """
    means = checked_means(values, subjects)
    if len(means) < fewest(inflation) or np.ptp(means) == 0:
        return without_interval(float(means.mean()), len(means))
    low, high = mean_limits(means, inflation=inflation)
    return estimate(means.mean(), max(low, least), high, len(means), "hall")


def paired_difference(
    first: ArrayLike, second: ArrayLike, subjects: ArrayLike, *, inflation: float = 1.0
) -> Estimate:
    """Return the mean over subjects of first minus second (scan,), with its interval."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return mean_interval(difference, subjects, inflation=inflation)


def share_interval(values: ArrayLike, subjects: ArrayLike, *, inflation: float = 1.0) -> Estimate:
    """Return the mean over subjects of shares in [0, 1] (scan,), with its interval.

    Wilson's score interval of as many trials as there are subjects; at 0 and 1 the exact limits
    of Clopper and Pearson.

    Raises
    ------
    ValueError
        If there is no row, or a value is NaN.
    """
    means = checked_means(values, subjects)
    share, count = float(means.mean()), len(means)
    if count < (FEWEST_SUBJECTS if inflation == 1 else FEWEST_REFITTED):
        return without_interval(share, count)
    if share in (0.0, 1.0):
        limit = exact_limit(count)
        low, high = (limit, 1.0) if share else (0.0, 1 - limit)
        return estimate(share, low, high, count, "exact")
    trials = count / inflation
    squared = NORMAL**2 / trials
    centre = (share + squared / 2) / (1 + squared)
    reach = NORMAL / (1 + squared) * np.sqrt(share * (1 - share) / trials + squared / (4 * trials))
    return estimate(share, centre - reach, centre + reach, count, "share")


def exact_share(hits: ArrayLike) -> Estimate:
    """Return the share of hits (person,), 0 or 1 each, with its interval.

    The exact limits of Clopper and Pearson; fewer than FEWEST_SUBJECTS have none.

    Raises
    ------
    ValueError
        If there is no one, or a value is neither 0 nor 1.
    """
    each = np.asarray(hits, dtype=np.float64)
    if not len(each) or not np.isin(each, (0, 1)).all():
        raise ValueError("share: expected a 0 or 1 for each of at least one person")
    count, found = len(each), int(each.sum())
    if count < FEWEST_SUBJECTS:
        return without_interval(found / count, count)
    low = beta.ppf(TAIL, found, count - found + 1) if found else 0.0
    high = beta.ppf(1 - TAIL, found + 1, count - found) if found < count else 1.0
    return estimate(found / count, low, high, count, "exact")


def median_interval(values: ArrayLike, subjects: ArrayLike) -> Estimate:
    """Return the median over subjects of the means of their scans (scan,), with its interval.

    The limits are order statistics, exact whatever the distribution; 6 subjects are the fewest
    that have them.

    Raises
    ------
    ValueError
        If there is no row, or a value is NaN.
    """
    means = np.sort(checked_means(values, subjects))
    below = int(binom.ppf(TAIL, len(means), 0.5)) - 1
    while below + 1 < len(means) and binom.cdf(below + 1, len(means), 0.5) <= TAIL:
        below += 1
    middle = float(np.median(means))
    if binom.cdf(max(below, 0), len(means), 0.5) > TAIL or means[below] == means[-1 - below]:
        return without_interval(middle, len(means))
    return estimate(middle, means[below], means[-1 - below], len(means), "median")


def fewest(inflation: float) -> int:
    """Return the fewest subjects of whom a mean has an interval."""
    return FEWEST_SUBJECTS if inflation == 1 else 2 * FEWEST_REFITTED


def refit_inflation(folds: int) -> float:
    """Return by how much fitting anew raises the variance of a cross-validated mean over subjects.

    Nadeau and Bengio (2003, Machine Learning 52): 1 / folds + test share / fitting share, in units
    of 1 / folds.
    """
    return 1 + folds / (folds - 1)


def exact_limit(count: int) -> float:
    """Return the lower Clopper–Pearson limit of so many successes out of as many trials."""
    return float(TAIL ** (1 / count))


def estimate(value: Any, low: Any, high: Any, subjects: int, method: IntervalMethod) -> Estimate:
    """Return a figure with its limits, as plain numbers."""
    return Estimate(
        value=float(value),
        low=float(low),
        high=float(high),
        subjects=subjects,
        interval_method=method,
    )


def without_interval(value: float, subjects: int, *, few: bool = False) -> Estimate:
    """Return a figure of which no interval is known; `few`: which is not even to be printed."""
    return Estimate(value=float(value), subjects=subjects, interval_method="few" if few else "none")


def checked_means(values: ArrayLike, subjects: ArrayLike) -> Floats:
    """Return `subject_means` of one row of scans; refuses none, and NaN."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("interval: expected at least one scan, received none")
    if not np.isfinite(array).all():
        raise ValueError(f"interval: {np.count_nonzero(~np.isfinite(array))} value(s) are NaN")
    return subject_means(array, subjects)
