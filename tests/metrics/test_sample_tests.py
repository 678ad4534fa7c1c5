"""Whether two samples are of one distribution: MMD, and copies of training scans."""

import numpy as np
import pytest

from pipeline.metrics.sample_tests import copies, jackknifed, kernel_width, mean_of_pairs, mmd


def test_mmd_is_small_for_one_distribution_and_not_for_two():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 60, 5))
    width = kernel_width(x, y)
    assert abs(mmd(x, y, width).value) < 0.03
    assert mmd(x, y + 2, width).value > 0.3
    near, far = mmd(x, y, width), mmd(x, y + 2, width)
    assert near.interval is not None
    assert near.interval[0] <= 0 <= near.interval[1]
    assert far.excludes(0)


def test_discrepancies_of_one_study_are_on_one_scale():
    """The median distance of each comparison would make a far sample's kernel wider."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 30, 4))
    width = kernel_width(x, y)
    found = [mmd(x, y + shift, width).value for shift in (0, 2, 6, 60)]
    assert found == sorted(found)
    within = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / width)
    assert found[-1] > 2 * (within.sum() - 30) / (30 * 29) * 0.9, "no kernel reaches that far"


def test_pairs_that_share_brains_are_no_more_evidence_than_brains():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        own = generator.normal(size=8)
        likeness = np.add.outer(own, own) + 0.1 * generator.normal(size=(8, 8))
        interval = mean_of_pairs(likeness).interval
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert covered >= 182
    assert jackknifed(lambda rows: float(rows.mean()), 4).interval is None


def test_copies_are_found_with_the_power_that_is_told():
    held_out, planted = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.1, 0.2, 0.45])
    none = copies(np.full(8, 0.5), held_out, planted)
    assert (none["found"], none["power"]) == (0, 0.75)
    assert none["at_most"] == pytest.approx((1 - 0.05 ** (1 / 8)) / 0.75)
    some = copies(np.array([0.05] * 3 + [0.5] * 5), held_out, planted)
    assert some["found"] == 3
    assert some["at_most"] > none["at_most"]
    assert copies(np.full(8, 0.5), held_out, np.array([0.9]))["at_most"] == 1
