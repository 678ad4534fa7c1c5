"""The layer on y_sem: which scale of its numbers it takes."""

import numpy as np
import pytest

from pipeline.probes.estimators import LabelledFeatures, code_head
from tests.support.probe_cohort import QUICK

PEOPLE, NUMBERS = 60, 40


def labelled(weights: np.ndarray, spreads: np.ndarray, seed: int) -> LabelledFeatures:
    generator = np.random.default_rng(seed)
    codes = generator.standard_normal((PEOPLE, NUMBERS))
    truth = codes @ weights + 0.3 * generator.standard_normal(PEOPLE)
    subjects = np.array([f"sub-{k}" for k in range(PEOPLE)])
    return LabelledFeatures(codes * spreads, truth, subjects, "regression")


def errors(weights: np.ndarray, spreads: np.ndarray) -> tuple[float, float]:
    """Return the spread of the probe's scales, and its error on other people."""
    known, new = (labelled(weights, spreads, seed) for seed in (0, 1))
    probe = code_head(known, QUICK)
    error = np.abs(probe.score(new.features) - new.truth).mean()
    return float(np.ptp(probe.std)), float(error)


def test_a_label_in_the_leading_amounts_is_read_with_the_spreads_that_they_have():
    weights, spreads = np.zeros(NUMBERS), np.geomspace(4, 0.05, NUMBERS)
    weights[:3] = 1
    differ, error = errors(weights, spreads)
    assert differ == 0
    assert error < 0.45


def test_a_label_in_a_faint_number_is_read_from_standardised_ones():
    weights, spreads = np.zeros(NUMBERS), np.geomspace(4, 1e-3, NUMBERS)
    weights[-1] = 1
    differ, error = errors(weights, spreads)
    assert differ > 1
    assert error == pytest.approx(0.4, abs=0.2)
