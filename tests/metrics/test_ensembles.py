"""Moments of draws one by one, and an interval for a further one."""

import numpy as np
import pytest

from pipeline.metrics.ensembles import RunningMoments, prediction_interval, reach


def test_running_moments_are_those_of_all_draws():
    draws = np.random.default_rng(0).normal(1000, 0.1, size=(6, 7, 8, 9)).astype(np.float32)
    moments = RunningMoments()
    for draw in draws:
        moments.add(draw)
    np.testing.assert_allclose(moments.mean, draws.mean(axis=0, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(moments.std, draws.std(axis=0, ddof=1, dtype=float), rtol=1e-6)


@pytest.mark.parametrize("count", [4, 8, 16])
def test_a_further_draw_lies_in_the_interval_nine_times_of_ten(count):
    generator = np.random.default_rng(count)
    held = []
    for _ in range(3000):
        half = generator.normal(size=count // 2)
        low, high = prediction_interval(np.concatenate([half, -half]))
        held.append(low <= generator.normal() <= high)
    assert 0.89 <= np.mean(held) <= 0.96


def test_many_draws_reach_as_far_as_a_normal_distribution():
    assert reach(10_000) == pytest.approx(1.645, abs=0.002)
    assert reach(16) > reach(64) > 1.645
