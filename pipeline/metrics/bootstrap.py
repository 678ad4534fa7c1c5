"""Intervals by resampling subjects, where `intervals` and `auc_intervals` have no formula."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.metrics import Estimate

Rows = NDArray[np.intp]

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

    A figure that is NaN on all rows or on more than half of the draws is left out.
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
