"""What so many people can show: the width of intervals before there is a figure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.auc_intervals import Ranking, auc_limits, hanley_mcneil
from schemas.metrics import FEWEST_REFITTED, FEWEST_SUBJECTS, FEWEST_TO_BEAT_CHANCE

PEOPLE = (5, 10, 15, 25, 50, 100, 200)
"""Of each class."""
AREA = 0.75
GRID: NDArray[np.float64] = np.arange(50, 101) / 100


@dataclass(frozen=True, slots=True)
class Showable:
    """What an interval of a ROC-AUC can tell with so many people of each class."""

    people: int
    half_width: float | None
    """Of the 95 % interval of a ROC-AUC of AREA; None where there is no interval."""
    least: float | None
    """The smallest of GRID whose interval leaves 0.5 out; None where none is called better."""


def what_people_show(*, cross_validated: bool) -> list[Showable]:
    """Return what each of PEOPLE can show, judged once on a test set or cross-validated."""
    return [showable(people, cross_validated=cross_validated) for people in PEOPLE]


def showable(people: int, *, cross_validated: bool) -> Showable:
    """Return what so many people of each class can show, one scan each."""
    if people < (FEWEST_REFITTED if cross_validated else FEWEST_SUBJECTS):
        return Showable(people, None, None)
    low, high = auc_limits(_expected(np.array([AREA]), people), refits=cross_validated)
    limits, _ = auc_limits(_expected(GRID, people), refits=cross_validated)
    above = GRID[limits > 0.5]
    least = float(above[0]) if len(above) and people >= FEWEST_TO_BEAT_CHANCE else None
    return Showable(people, float(high[0] - low[0]) / 2, least)


def _expected(area: NDArray[np.float64], people: int) -> Ranking:
    """Return rankings of these areas, of scans that vary as Hanley and McNeil expect."""
    count = np.full(len(area), float(people))
    variance = hanley_mcneil(np.clip(area, 1e-3, 1 - 1e-3), people, people)
    return Ranking(area, variance, (count, count), (people, people), np.empty((len(area), 0)))
