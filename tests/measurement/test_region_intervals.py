"""Intervals of a region's next measure hold as many new people as they promise."""

import numpy as np
import pytest

from pipeline.measurement.region_intervals import fit_region_intervals
from schemas.errors import ContractError

SCHEDULES = ((0.0, 12.0), (0.0, 6.0, 12.0), (0.0, 12.0, 24.0))


def people_of(generator, count, tails):
    """Simulate people whose region shrinks, with scans that depart as Student's t does."""
    measures, months, names = [], [], []
    for i in range(count):
        at = SCHEDULES[generator.integers(len(SCHEDULES))]
        level, slope = generator.normal(20, 2), generator.normal(-0.05, 0.02)
        for month in at:
            ml = level + slope * month + 0.2 * generator.standard_t(tails)
            measures.append({"temporal": ml})
            months.append(month)
            names.append(str(i))
    return measures, np.array(months), names


@pytest.mark.parametrize(("count", "tails"), [(6, 30), (24, 3)])
def test_nine_of_ten_next_visits_lie_in_the_interval(count, tails):
    """With people too few for a quantile of errors, and with scans that depart far at times."""
    generator = np.random.default_rng(2)
    held = []
    for _ in range(25):
        intervals = fit_region_intervals(*people_of(generator, count, tails))
        rate = float(intervals.courses["temporal"].rate[0])
        for _ in range(20):
            at = 12.0
            while True:
                new, when, _ = people_of(generator, 1, tails)
                if tuple(when) == SCHEDULES[0]:
                    break
            first, last = new[0]["temporal"], new[1]["temporal"]
            half = intervals.half_widths([0.0], at)["temporal"]
            held.append(abs(first + at * rate - last) <= half)
    assert 0.84 <= np.mean(held) <= 0.98


def test_a_longer_way_is_less_sure():
    intervals = fit_region_intervals(*people_of(np.random.default_rng(0), 24, 30))
    near, far = (intervals.half_widths([0.0], at)["temporal"] for at in (6.0, 48.0))
    assert far > near > 0


def test_two_people_tell_no_interval():
    with pytest.raises(ContractError, match="intervals need 3"):
        fit_region_intervals(*people_of(np.random.default_rng(0), 2, 30))
