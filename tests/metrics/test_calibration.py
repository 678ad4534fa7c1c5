"""Calibration of predicted classes."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LinearRegression, LogisticRegression

from pipeline.metrics.calibration import calibration_lines, regression_lines
from pipeline.metrics.calibration_intervals import calibration_figures, effect_size
from pipeline.metrics.intervals import estimate
from schemas.metrics import Prediction


def test_calibration_slope_tells_overconfidence() -> None:
    generator = np.random.default_rng(6)
    odds = generator.normal(size=4000)
    truth = (generator.random(4000) < expit(odds)).astype(float)
    right = calibration_lines(truth, expit(odds), np.ones((1, 4000)))
    assert right["calibration_slope"] == pytest.approx(1, abs=0.12)
    assert right["calibration_intercept"] == pytest.approx(0, abs=0.1)
    bold = calibration_lines(truth, expit(2 * odds + 1), np.ones((1, 4000)))
    assert bold["calibration_slope"] == pytest.approx(0.5, abs=0.06)
    assert bold["calibration_intercept"] < -0.5
    apart = calibration_lines(
        np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.ones((1, 4))
    )
    assert np.isnan(apart["calibration_slope"]), "no slope is steep enough"


def test_lines_are_those_of_scikit_learn_for_every_weighting() -> None:
    generator = np.random.default_rng(1)
    score, weights = expit(2 * generator.normal(size=60)), generator.random((5, 60))
    truth = (generator.random(60) < score**2).astype(float)
    odds = logit(score)[:, None]
    found = calibration_lines(truth, score, weights)["calibration_slope"]
    numbers = regression_lines(10 * truth, score, weights)["calibration_slope"]
    for weight, slope, other in zip(weights, found, numbers, strict=True):
        layer = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-10)
        even = weight / np.where(truth == 1, weight[truth == 1].sum(), weight[truth == 0].sum())
        layer.fit(odds, truth, sample_weight=even * 60)
        assert slope == pytest.approx(layer.coef_[0, 0], rel=1e-3)
        line = LinearRegression().fit(score[:, None], 10 * truth, sample_weight=weight)
        assert other == pytest.approx(line.coef_[0])


def test_what_is_undefined_is_nan_in_its_own_draw_alone() -> None:
    score, truth = np.array([0.1, 0.2, 0.8, 0.9, 0.7]), np.array([0.0, 0, 1, 1, 0])
    weights = np.array([[1.0] * 5, [1, 1, 1, 1, 0], [1, 1, 0, 0, 1], [0, 0, 1, 1, 1]])
    weights[0] = [1, 1, 1, 1, 1]
    score[4] = 0.85
    found = calibration_lines(truth, score, weights)
    assert list(np.isfinite(found["calibration_slope"])) == [True, False, False, True]
    assert list(np.isfinite(found["calibration_intercept"])) == [True, True, False, True]
    assert np.isnan(calibration_lines(truth, 0.5 + 0 * score, weights)["calibration_slope"]).all()
    assert np.isnan(regression_lines(score, 70 + 0 * score, weights)["calibration_slope"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "people"), [("regression", 10), ("classification", 40)])
def test_intervals_of_the_slope_hold_it_as_often_as_they_say(kind: Prediction, people: int) -> None:
    generator = np.random.default_rng(2)
    subjects, held = np.arange(people).astype(str), []
    for _ in range(300):
        x = 1.5 * generator.normal(size=people)
        if kind == "regression":
            score, truth = 60 + 8 * x, 60 + 0.6 * 8 * x + 6 * generator.normal(size=people)
        else:
            score, truth = expit(x), (generator.random(people) < expit(0.6 * x)).astype(float)
        found = calibration_figures(truth, score[None], subjects, kind, refitted=False)
        held.append(not found["calibration_slope"].excludes(0.6))
    assert 0.92 <= np.mean(held) <= 0.995


def test_few_people_and_refitted_probes_have_a_slope_without_interval() -> None:
    truth, score = np.arange(20.0), np.arange(20.0)[None] + np.sin(np.arange(20))
    subjects = np.arange(20).astype(str)
    few = calibration_figures(truth[:9], score[:, :9], subjects[:9], "regression", refitted=False)
    again = calibration_figures(truth, score, subjects, "regression", refitted=True)
    once = calibration_figures(truth, score, subjects, "regression", refitted=False)
    assert few["calibration_slope"].interval is None
    assert again["calibration_slope"].interval is None
    assert once["calibration_slope"].interval is not None
    assert once["calibration_intercept"].value == pytest.approx(-np.sin(np.arange(20)).mean())


def test_an_effect_size_is_the_distance_of_two_normal_distributions() -> None:
    found = effect_size(estimate(0.7602, 0.6, 0.9, 40, "score"))
    assert found is not None
    assert found.value == pytest.approx(1, abs=0.001)
    assert found.interval == pytest.approx((0.358, 1.812), abs=0.001)
    perfect = effect_size(estimate(0.99, 0.8, 1.0, 40, "score"))
    assert perfect is not None
    assert perfect.interval is None
    assert effect_size(estimate(1.0, 0.8, 1.0, 40, "exact")) is None
