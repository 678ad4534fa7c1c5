"""Draws of whole subjects."""

import numpy as np

from pipeline.metrics.bootstrap import subject_draws, subject_weights


def test_weights_are_the_draws_of_whole_subjects() -> None:
    subjects = np.repeat(["a", "b", "c"], [1, 2, 3])
    weights = subject_weights(subjects, draws=20, seed=3)
    assert (weights[0] == 1).all()
    drawn = subject_draws(subjects, draws=20, seed=3)
    np.testing.assert_array_equal(weights[7], np.bincount(drawn[6], minlength=6))
    assert (weights[:, 1] == weights[:, 2]).all()
