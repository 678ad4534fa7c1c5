"""Mean, spread and prediction interval of draws that are made batch by batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

LEVEL = 0.9
"""Share of new scans that a prediction interval is meant to hold."""


def reach(count: int, level: float = LEVEL) -> float:
    """Return how many standard deviations of `count` draws a prediction interval goes each way.

    Student's t for a further draw of a normal distribution, where draws come in pairs about their
    mean, so that half of them are free: 1.92 with 16, whose 5th and 95th percentiles would hold
    too little.
    """
    return float(t.ppf((1 + level) / 2, max(count // 2, 1)) * np.sqrt(1 + 1 / count))


def prediction_interval(draws: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the limits that hold a further draw with probability `level`; of two draws or more."""
    values = np.asarray(draws, dtype=np.float64)
    half = reach(len(values), level) * float(values.std(ddof=1))
    return float(values.mean()) - half, float(values.mean()) + half


@dataclass
class RunningMoments:
    """Sum of draws and of their squares, about the first one."""

    count: int = 0
    centre: NDArray[np.float64] | None = None
    total: NDArray[np.float64] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0

    def add(self, draw: NDArray[np.floating]) -> None:
        """Take in one draw, of any shape."""
        values = np.asarray(draw, dtype=np.float64)
        if self.centre is None:
            self.centre = values
        away = values - self.centre
        self.total = self.total + away
        self.squares = self.squares + away**2
        self.count += 1

    @property
    def mean(self) -> NDArray[np.float64]:
        """Return the mean of the draws."""
        assert self.centre is not None
        return np.asarray(self.centre + self.total / self.count)

    @property
    def std(self) -> NDArray[np.float64]:
        """Return the standard deviation of the draws, of two or more."""
        assert self.count > 1
        about = self.squares - np.square(self.total) / self.count
        return np.asarray(np.sqrt(np.maximum(about, 0) / (self.count - 1)))
