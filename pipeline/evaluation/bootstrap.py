"""Intervals by resampling subjects: two scans of one brain are not two pieces of evidence."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.metrics import Estimate

Rows = NDArray[np.intp]
Statistic = Callable[[Rows], float]
Statistics = Callable[[Rows], Mapping[str, float]]

LEVEL = 0.95
MIN_SHARE_OF_DRAWS = 0.5


def subject_draws(subjects: ArrayLike, *, draws: int, seed: int) -> list[Rows]:
    """Return the rows of each draw: as many subjects as there are, with replacement, whole.

    The draws depend on the subject names, the number of draws and the seed alone (up to the order
    of rows), so that statistics judged on the same subjects are paired.
    """
    names, inverse = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    rows_of = np.split(
        np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1].tolist()
    )
    generator = np.random.default_rng(seed)
    return [
        np.concatenate([rows_of[i] for i in generator.integers(len(names), size=len(names))])
        for _ in range(draws)
    ]


def bootstrap_intervals(
    statistics: Statistics, subjects: ArrayLike, *, draws: int, seed: int
) -> dict[str, Estimate]:
    """Return value and 95 % percentile interval of several statistics over the same draws.

    `statistics` maps row indices to named figures. A figure that is NaN on a draw (one class only,
    a constant truth) leaves that draw out; a figure that is NaN on all rows, or on more than half
    of the draws, is left out of the result. With one subject the interval collapses to the value.
    """
    names = np.asarray(subjects, dtype=str)
    num_subjects = len(np.unique(names))
    values = statistics(np.arange(len(names)))
    if num_subjects > 1:
        drawn = [statistics(rows) for rows in subject_draws(names, draws=draws, seed=seed)]
    else:
        drawn = [values]
    estimates = {}
    for key, value in values.items():
        sample = np.array([figures[key] for figures in drawn], dtype=float)
        sample = sample[np.isfinite(sample)]
        if not np.isfinite(value) or len(sample) < MIN_SHARE_OF_DRAWS * len(drawn):
            continue
        low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        estimates[key] = Estimate(
            value=float(value), low=float(low), high=float(high), subjects=num_subjects
        )
    return estimates


def subject_weights(subjects: ArrayLike, *, draws: int, seed: int) -> NDArray[np.float64]:
    """Return how often each scan is in each draw, (1 + draws, scan); the first row is all once.

    The draws are those of `subject_draws`. With one subject there is the first row alone.
    """
    names = np.asarray(subjects, dtype=str)
    rows = [np.arange(len(names))]
    if len(np.unique(names)) > 1:
        rows += subject_draws(names, draws=draws, seed=seed)
    return np.stack([np.bincount(row, minlength=len(names)) for row in rows]).astype(np.float64)


def intervals_over_draws(
    figures: Mapping[str, NDArray[np.float64]], *, subjects: int
) -> dict[str, Estimate]:
    """Return value and 95 % interval of figures (1 + draws,) made with `subject_weights`.

    As in `bootstrap_intervals`, a figure that is NaN on all rows or on more than half of the draws
    is left out.
    """
    estimates = {}
    for key, values in figures.items():
        drawn = values[1:] if len(values) > 1 else values
        sample = drawn[np.isfinite(drawn)]
        if not np.isfinite(values[0]) or len(sample) < MIN_SHARE_OF_DRAWS * len(drawn):
            continue
        low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        estimates[key] = Estimate(
            value=float(values[0]), low=float(low), high=float(high), subjects=subjects
        )
    return estimates


def bootstrap_interval(
    values: ArrayLike | Statistic, subjects: ArrayLike, *, draws: int, seed: int
) -> Estimate:
    """Return value and 95 % interval of a mean over scans, or of any statistic of row indices.

    Raises
    ------
    ValueError
        If there is no row, or the statistic is undefined on the data (NaN).
    """
    statistic = _as_statistic(values)
    num_rows = len(np.asarray(subjects))
    if num_rows == 0:
        raise ValueError("bootstrap_interval: expected at least one row, received none")
    estimates = bootstrap_intervals(
        lambda rows: {"value": statistic(rows)}, subjects, draws=draws, seed=seed
    )
    if not estimates:
        raise ValueError(f"bootstrap_interval: the statistic is undefined on these {num_rows} rows")
    return estimates["value"]


def paired_difference(
    first: ArrayLike | Statistic,
    second: ArrayLike | Statistic,
    subjects: ArrayLike,
    *,
    draws: int,
    seed: int,
) -> Estimate:
    """Return first minus second, judged on the same draws of subjects."""
    a, b = _as_statistic(first), _as_statistic(second)
    return bootstrap_interval(lambda rows: a(rows) - b(rows), subjects, draws=draws, seed=seed)


def _as_statistic(values: ArrayLike | Statistic) -> Statistic:
    if callable(values):
        return values
    array = np.asarray(values, dtype=float)
    return lambda rows: float(array[rows].mean())
