"""The linear layer of a probe."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.probes.linear import LARGE, direction_of, fit_linear, many_fits
from schemas.metrics import Prediction


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_fitting_in_the_span_of_few_scans_changes_no_probe(kind: Prediction) -> None:
    """A penalised layer on 30 features of 12 scans, fitted on 12 numbers or on all 30."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(12, 30)) * generator.uniform(0.1, 9, 30)
    truth = (np.arange(12) % 2).astype(float)
    probe = fit_linear(x, truth, np.arange(12), kind, folds=2, seed=0, strength=0.7)
    z = StandardScaler().fit_transform(x)
    layer = (
        LogisticRegression(C=0.7, class_weight="balanced", tol=1e-8, max_iter=5000)
        if kind == "classification"
        else Ridge(alpha=0.7)
    )
    layer.fit(z, truth)
    np.testing.assert_allclose(probe.coef, np.ravel(layer.coef_), atol=2e-4)


def test_small_fits_take_one_blas_thread_and_large_ones_what_there_is():
    def threads() -> set[int]:
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with many_fits(LARGE - 1):
            assert threads() == {1}
        with many_fits(LARGE):
            assert threads() == {2}
        assert threads() == {2}


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_codes_move_along_the_pattern_as_the_target_moves_them(kind: Prediction) -> None:
    """Severity moves six numbers; a nuisance moves them too, which the weight has to cancel."""
    generator = np.random.default_rng(0)
    severity, nuisance = generator.normal(size=(2, 2000))
    effect, other = np.array([1, 1, 1, 0, 0, 0.0]), np.array([0, 0, 2, 2, 2, 0.0])
    codes = np.outer(severity, effect) + np.outer(nuisance, other)
    codes += 0.5 * generator.normal(size=codes.shape)
    truth = severity if kind == "regression" else (severity > 0).astype(float)
    probe = fit_linear(codes, truth, np.arange(2000), kind, folds=2, seed=0, strength=1.0)
    direction = direction_of(probe, codes, "severity")
    assert direction is not None

    def likeness(step):
        return step @ effect / np.linalg.norm(step) / np.linalg.norm(effect)

    assert likeness(direction.step) > 0.99
    assert likeness(direction.of_weights.step) < 0.9
    for moved in (direction, direction.of_weights):
        np.testing.assert_allclose(direction.position(moved.step + direction.mean), 1, atol=1e-9)
    rate = np.polyfit(severity, direction.position(codes), 1)[0]
    np.testing.assert_allclose(rate * direction.step, effect, atol=0.12)
