"""Calibration of predicted classes."""

import numpy as np
import pytest
from scipy.special import expit

from pipeline.metrics.calibration import calibration_line


def test_calibration_slope_tells_overconfidence() -> None:
    generator = np.random.default_rng(6)
    odds = generator.normal(size=4000)
    truth = (generator.random(4000) < expit(odds)).astype(float)
    right = calibration_line(truth, expit(odds), np.ones(4000))
    assert right["calibration_slope"] == pytest.approx(1, abs=0.12)
    assert right["calibration_intercept"] == pytest.approx(0, abs=0.1)
    bold = calibration_line(truth, expit(2 * odds + 1), np.ones(4000))
    assert bold["calibration_slope"] == pytest.approx(0.5, abs=0.06)
    assert bold["calibration_intercept"] < -0.5
    apart = calibration_line(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.ones(4))
    assert np.isnan(apart["calibration_slope"]), "no slope is steep enough"
