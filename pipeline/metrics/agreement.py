"""Agreement of repeated measurements: ICC(A,1).

McGraw and Wong (1996, Psychological Methods 1), two-way random effects, absolute agreement, one
measurement; ICC(2,1) of Shrout and Fleiss (1979). A shift between occasions or scanners lowers it,
as it should where single scans are to be compared. Negative values are not cut.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f

from pipeline.metrics.intervals import TAIL, estimate, without_interval
from schemas.metrics import FEWEST_SUBJECTS, Estimate

Floats = NDArray[np.float64]
FEWEST = 3
"""Fewer people have no ICC."""


def icc_agreement(table: NDArray[np.floating]) -> Estimate:
    """Return ICC(A,1) of a table (person, occasion) without gaps, with its F interval.

    Fewer than FEWEST_SUBJECTS people, or people whose repeats are equal, have no interval.

    Raises
    ------
    ValueError
        If there are fewer than FEWEST people or 2 occasions, a gap, or no difference at all.
    """
    y = np.asarray(table, dtype=np.float64)
    people, occasions = y.shape
    if people < FEWEST or occasions < 2:
        raise ValueError(f"ICC: {people} people on {occasions} occasions; 3 on 2 are needed")
    if not np.isfinite(y).all():
        raise ValueError("ICC: a value is missing")
    rows, columns, error = map(float, _mean_squares(y))
    below = rows + (occasions - 1) * error + occasions * (columns - error) / people
    if below <= 0:
        raise ValueError("ICC: all values are equal")
    value = (rows - error) / below
    if people < FEWEST_SUBJECTS or error <= 1e-12 * rows or value >= 1:
        return without_interval(value, people)
    low, high = _limits(value, rows, columns, error, people, occasions)
    if not (np.isfinite(low) and np.isfinite(high) and low < value < high):
        return without_interval(value, people)
    return estimate(value, low, high, people, "f")


def icc_of_each(tables: NDArray[np.floating]) -> Floats:
    """Return ICC(A,1) (dim,) of tables (person, occasion, dim); NaN where nothing differs."""
    y = np.asarray(tables, dtype=np.float64)
    people, occasions = y.shape[:2]
    rows, columns, error = _mean_squares(y)
    below = rows + (occasions - 1) * error + occasions * (columns - error) / people
    each: Floats = np.divide(rows - error, below, out=np.full_like(below, np.nan), where=below > 0)
    return each


def _mean_squares(y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mean squares between people, between occasions, and of the rest."""
    people, occasions = y.shape[:2]
    mean = y.mean(axis=(0, 1))
    of_person, of_occasion = y.mean(axis=1), y.mean(axis=0)
    rest = y - of_person[:, None] - of_occasion[None] + mean
    rows = occasions * np.square(of_person - mean).sum(axis=0) / (people - 1)
    columns = people * np.square(of_occasion - mean).sum(axis=0) / (occasions - 1)
    error = np.square(rest).sum(axis=(0, 1)) / ((people - 1) * (occasions - 1))
    return rows, columns, error


def _limits(
    icc: float, rows: float, columns: float, error: float, people: int, occasions: int
) -> tuple[float, float]:
    """Return the limits of McGraw and Wong (1996), table 7, case 2A."""
    n, k = people, occasions
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    lower, upper = f.ppf(1 - TAIL, n - 1, freedom), f.ppf(1 - TAIL, freedom, n - 1)
    shared = k * columns + (k * n - k - n) * error
    low = n * (rows - lower * error) / (lower * shared + n * rows)
    high = n * (upper * rows - error) / (shared + n * upper * rows)
    return float(low), float(high)
