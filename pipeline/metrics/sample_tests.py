"""Tests of a few generated brains: likeness, discrepancy and copies, with intervals.

Pairs of brains share brains, so that 28 pairs of 8 are 8 pieces of evidence: intervals leave out a
brain at a time (jackknife), with all its pairs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, t

from pipeline.metrics.intervals import TAIL, estimate, without_interval
from schemas.metrics import FEWEST_SUBJECTS, Estimate

Floats = NDArray[np.float64]


def jackknifed(statistic: Callable[..., float], *counts: int) -> Estimate:
    """Return a statistic of samples of these sizes, with its interval by Student's t.

    `statistic` takes the rows kept of each sample. Each sample's rows are left out one at a time;
    fewer than FEWEST_SUBJECTS in a sample have no interval.
    """
    every = [np.arange(count) for count in counts]
    value = float(statistic(*every))
    if min(counts) < FEWEST_SUBJECTS:
        return without_interval(value, min(counts))
    variance = 0.0
    for which, count in enumerate(counts):
        without = []
        for left_out in range(count):
            kept = list(every)
            kept[which] = np.delete(every[which], left_out)
            without.append(statistic(*kept))
        variance += (
            (count - 1) / count * float(np.square(np.subtract(without, np.mean(without))).sum())
        )
    reach = float(t.ppf(1 - TAIL, min(counts) - 1)) * np.sqrt(variance)
    if not reach:
        return without_interval(value, min(counts))
    return estimate(value, value - reach, value + reach, min(counts), "t")


def kernel_width(*samples: NDArray[np.floating]) -> float:
    """Return the median squared distance between rows of all samples: one width for a study."""
    rows = np.concatenate(samples)
    distances = _squared_distances(rows, rows)
    return max(float(np.median(distances[np.triu_indices(len(rows), 1)])), 1e-12)


def mmd(x: NDArray[np.floating], y: NDArray[np.floating], width: float) -> Estimate:
    """Return the unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

    Gaussian kernel of the squared width, which has to be one for figures that are compared. Around
    0, also below, where both come from one distribution.
    """
    both = np.concatenate([x, y])
    kernel = np.exp(-_squared_distances(both, both) / width)
    n = len(x)

    def discrepancy(of_x: NDArray[np.intp], of_y: NDArray[np.intp]) -> float:
        within = sum(_off_diagonal_mean(kernel[np.ix_(rows, rows)]) for rows in (of_x, n + of_y))
        return float(within - 2 * kernel[np.ix_(of_x, n + of_y)].mean())

    return jackknifed(discrepancy, n, len(y))


def mean_of_pairs(likeness: Floats) -> Estimate:
    """Return the mean over pairs of a symmetric table (brain, brain), NaN where not compared."""

    def mean(rows: NDArray[np.intp]) -> float:
        part = likeness[np.ix_(rows, rows)]
        values = part[np.triu_indices(len(rows), 1)]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    return jackknifed(mean, len(likeness))


def copies(generated: Floats, held_out: Floats, planted: Floats) -> dict[str, Any]:
    """Return how many generated brains are copies, and the power to recognise copies.

    All are distances (n,) to the nearest training latent. A copy is a brain nearer to a training
    scan than any unseen scan is. `planted` are those of training scans that have gone through the
    autoencoder: the share of them called copies is the test's `power`. `at_most` is the share of
    copies among all brains that the model makes which 95 in 100 such samples would not miss.
    """
    threshold = float(held_out.min())
    copied = int((generated < threshold).sum())
    power = float((planted < threshold).mean())
    return {
        "found": copied,
        "brains": len(generated),
        "threshold": threshold,
        "power": power,
        "at_most": _upper_share(copied, len(generated), power),
    }


def _upper_share(copied: int, count: int, power: float) -> float:
    """Return the one-sided 95 % Clopper–Pearson limit of the share of copies; 1 without power."""
    recognised = 1.0 if copied == count else float(beta.ppf(0.95, copied + 1, count - copied))
    return min(1.0, recognised / power) if power else 1.0


def _off_diagonal_mean(kernel: Floats) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _squared_distances(x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0))
