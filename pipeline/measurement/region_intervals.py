"""How far a region's next measure lies from what is foreseen: learned from people seen twice.

Draws of a model differ in what the model varies; a new scan differs in all else too: the scanner,
the registration, what y_sem does not hold. So the interval of a region is taken from how the same
measure went on in people whose later visit is known, each foreseen without that person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from pipeline.measurement.brain_age import conformal
from pipeline.measurement.course import NOBODY, Course, fit_course
from pipeline.metrics.ensembles import LEVEL
from schemas.errors import ContractError

Floats = NDArray[np.float64]
FEWEST = 3
"""People seen twice below whom nothing is said: one is left out, two more tell a scatter."""


@dataclass(frozen=True, slots=True)
class RegionIntervals:
    """The courses of regions' measures, and how many of their standard deviations hold LEVEL."""

    courses: Mapping[str, Course]
    """Region to the course of its measure (one number)."""
    reaches: Mapping[str, float]
    """Region to the half-width of its interval, in standard deviations expected of a new scan."""

    def half_widths(self, months: Sequence[float], at: float) -> dict[str, float]:
        """Return the half-width of each region's interval at month `at`, after visits at `months`.

        In the unit of the measures; about whatever foresees them no worse than their own course.
        """
        known = np.asarray(months, np.float64)
        nothing = np.zeros((len(known), 1))
        return {
            name: self.reaches[name] * np.sqrt(course.expected(nothing, known, at).variance)
            for name, course in self.courses.items()
        }


def fit_region_intervals(
    measures: Sequence[Mapping[str, float]], months: Floats, people: Sequence[str]
) -> RegionIntervals:
    """Return intervals learned from scans (scan,): the measures of each, its month and person.

    The reach is split-conformal over people (Lei et al. 2018), each person's last visit foreseen by
    the course of all others; with fewer people than that needs, Student's t.

    Raises
    ------
    ContractError
        If fewer than FEWEST people have two visits at different months.
    """
    names = [name for name in measures[0] if all(name in own for own in measures)]
    owners = np.asarray(people, str)
    twice = [
        person
        for person in np.unique(owners)
        if len(np.unique(months[(owners == person) & np.isfinite(months)])) > 1
    ]
    if len(twice) < FEWEST:
        raise ContractError(f"{NOBODY}: {len(twice)} of them, intervals need {FEWEST}")
    courses, reaches = {}, {}
    for name in names:
        values = np.array([[own[name]] for own in measures], np.float64)
        errors = np.array([_left_out(values, months, owners, person) for person in twice])
        held = conformal(errors, LEVEL)
        if not np.isfinite(held):
            typical = float(np.sqrt(np.mean(errors**2)))
            held = typical * float(t.ppf((1 + LEVEL) / 2, len(twice) - 1))
        courses[name], reaches[name] = fit_course(values, months, people), held
    return RegionIntervals(courses, reaches)


def _left_out(values: Floats, months: Floats, owners: NDArray[np.str_], person: str) -> float:
    """Return how far a person's last visit lies from the course of all others, in its SDs."""
    own = (owners == person) & np.isfinite(months)
    course = fit_course(values[~own], months[~own], owners[~own].tolist())
    at, first = np.unique(months[own], return_index=True)
    ordered = values[own][first]
    expected = course.expected(ordered[:-1], at[:-1], at[-1])
    away = abs(float(ordered[-1, 0] - expected.mean[0]))
    return away / float(np.sqrt(max(expected.variance, 1e-30)))
