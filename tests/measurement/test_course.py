"""The course of people seen twice: a simulated one is found, and its intervals hold."""

import dataclasses

import numpy as np
import pytest

from pipeline.measurement.course import fit_course
from pipeline.metrics.ensembles import prediction_interval
from pipeline.models.direction import Direction
from schemas.errors import ContractError

DIM = 20
RATE = np.linspace(0.01, 0.03, DIM)
MONTHS = ((0, 12), (0, 6, 12), (0, 12, 24), (0, 6, 12, 24))


def people_of(generator, count, noise, own):
    """Simulate `count` people: their numbers, months and names."""
    values, months, names = [], [], []
    for i in range(count):
        at = np.array(MONTHS[generator.integers(len(MONTHS))], float)
        slope = RATE + own * generator.normal(size=DIM)
        level = generator.normal(size=DIM)
        values.append(level + at[:, None] * slope + noise * generator.normal(size=(len(at), DIM)))
        months.append(at)
        names += [str(i)] * len(at)
    return np.concatenate(values), np.concatenate(months), names


def test_rate_noise_and_own_slopes_are_told_apart():
    course = fit_course(*people_of(np.random.default_rng(0), 200, 0.1, 0.01))
    assert course.noise == pytest.approx(DIM * 0.01, rel=0.15)
    assert course.own == pytest.approx(DIM * 1e-4, rel=0.25)
    np.testing.assert_allclose(course.rate, RATE, atol=0.005)
    assert (course.departures**2).sum() == pytest.approx(1, rel=0.05)
    assert (course.people, course.longest_months) == (200, 24)


@pytest.mark.parametrize(("noise", "own"), [(0.1, 0.01), (0.02, 0.02), (0.1, 0.0)])
@pytest.mark.parametrize("visits", [1, 2])
def test_nine_of_ten_next_visits_lie_in_the_interval(noise, own, visits):
    """Also where the own slope is known from two visits, and where few people were seen."""
    generator = np.random.default_rng(3)
    held = []
    for _ in range(40):
        course = fit_course(*people_of(generator, 8, noise, own))
        for _ in range(10):
            slope = RATE + own * generator.normal(size=DIM)
            at = np.array([0.0, 12, 24])
            values = at[:, None] * slope + noise * generator.normal(size=(3, DIM))
            expected = course.expected(values[:visits], at[:visits], at[2])
            draws = course.draws(expected, 16, generator)
            low, high = prediction_interval(draws[:, :5].mean(axis=1))
            held.append(low <= values[2, :5].mean() <= high)
    assert 0.86 <= np.mean(held) <= 0.98


def test_one_visit_goes_on_at_the_rate_of_everybody_several_at_their_own():
    course = fit_course(*people_of(np.random.default_rng(1), 60, 0.01, 0.02))
    start = np.ones(DIM)
    one = course.expected(start[None], np.array([6.0]), 18.0)
    np.testing.assert_allclose(one.mean, start + 12 * course.rate)
    assert one.own_share == 0
    own = np.stack([start, start + 12 * 0.5])
    two = course.expected(own, np.array([0.0, 12]), 24.0)
    assert two.own_share > 0.9
    np.testing.assert_allclose(two.mean, start + 24 * 0.5, atol=1.0)
    assert two.variance < one.variance + course.own * 24**2
    noisy = fit_course(*people_of(np.random.default_rng(1), 60, 0.3, 0.0))
    assert noisy.expected(own, np.array([0.0, 12]), 24.0).own_share < 0.2


def test_only_the_part_along_a_direction_is_kept():
    course = fit_course(*people_of(np.random.default_rng(1), 20, 0.1, 0.01))
    weight, std = np.eye(DIM)[3], np.linspace(1, 2, DIM)
    direction = Direction(weight, np.zeros(DIM), std, 0.7, "up")
    rate = course.along(direction.step, direction.reader).rate
    assert rate[3] == pytest.approx(course.rate[3])
    assert not rate[np.arange(DIM) != 3].any()
    # Along a pattern others go with it; the place along the direction moves as far.
    together = dataclasses.replace(direction, pattern=0.7 * weight + 0.1 * np.eye(DIM)[4])
    moved = course.along(together.step, together.reader).rate
    assert moved[4] == pytest.approx(moved[3] * (0.1 * std[4]) / (0.7 * std[3]))
    np.testing.assert_allclose(together.position(moved), together.position(course.rate))


def test_draws_have_the_spread_that_is_expected_and_come_in_pairs():
    course = fit_course(*people_of(np.random.default_rng(2), 80, 0.1, 0.01))
    expected = course.expected(np.zeros((1, DIM)), np.array([0.0]), 12.0)
    draws = course.draws(expected, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(draws[0] + draws[1], 2 * expected.mean)
    assert ((draws - expected.mean) ** 2).sum(axis=1).mean() == pytest.approx(
        expected.variance, rel=0.15
    )
    assert len(course.draws(expected, 5, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    ("months", "at", "told"),
    [([0.0, 0.0], 6.0, "out of order or on one day"), ([6.0, 0.0], 12.0, "out of order"),
     ([0.0, 12.0], 12.0, "month 12 is not after")],
)  # fmt: skip
def test_visits_without_order_are_refused(months, at, told):
    course = fit_course(*people_of(np.random.default_rng(1), 20, 0.1, 0.01))
    with pytest.raises(ContractError, match=told):
        course.expected(np.zeros((2, DIM)), np.array(months), at)


def test_nobody_seen_twice_is_refused():
    months = np.array([0.0, 0.0, np.nan, 0.0, np.nan])
    with pytest.raises(ContractError, match="nobody has two visits at different months"):
        fit_course(np.zeros((5, DIM)), months, ["a", "b", "b", "c", "c"])
