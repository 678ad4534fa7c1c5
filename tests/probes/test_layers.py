"""Penalised layers fitted together: those of scikit-learn, one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.layers import fits
from pipeline.probes.layers.fits import fit_layers
from pipeline.probes.linear import ALPHA_GRID, C_GRID, balanced, fit_linear, subject_weight
from pipeline.probes.permutation_test import refitted_scores

SCANS, DIM = 40, 9


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SCANS, DIM))


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.3, 2, SCANS)


def test_logistic_layers_of_all_strengths_are_those_of_scikit_learn(x, weight) -> None:
    truth = (x[:, 0] + np.random.default_rng(2).normal(size=SCANS) > 0.5).astype(float)
    layers = fit_layers(x, truth, weight, "classification", C_GRID)
    for c, coef, intercept in zip(C_GRID, layers.coef, layers.intercept, strict=True):
        one = LogisticRegression(C=c, tol=1e-10, max_iter=20_000)
        one.fit(x, truth, sample_weight=weight)
        np.testing.assert_allclose(coef, one.coef_[0], atol=1e-5)
        np.testing.assert_allclose(intercept, one.intercept_[0], atol=1e-5)


def test_ridge_layers_of_all_strengths_are_those_of_scikit_learn(x, weight) -> None:
    truth = 70 + 5 * x[:, 0] + np.random.default_rng(2).normal(size=SCANS)
    layers = fit_layers(x, truth, weight, "regression", ALPHA_GRID)
    for alpha, coef, intercept in zip(ALPHA_GRID, layers.coef, layers.intercept, strict=True):
        one = Ridge(alpha=alpha).fit(x, truth, sample_weight=weight)
        np.testing.assert_allclose(coef, one.coef_, atol=1e-9)
        np.testing.assert_allclose(intercept, one.intercept_, atol=1e-9)


def test_classes_that_are_far_apart_still_have_a_flat_gradient() -> None:
    """Whole Newton steps overshoot where hardly any scan is uncertain."""
    far = 50 * np.repeat([-1.0, 1.0], 10)[:, None] + np.random.default_rng(3).normal(size=(20, 4))
    truth = np.repeat([0.0, 1.0], 10)
    layers = fit_layers(far, truth, np.ones(20), "classification", [1e-4, 1.0, 1e4])
    for c, coef, value in zip([1e-4, 1.0, 1e4], layers.coef, layers.value(far), strict=True):
        residual = 1 / (1 + np.exp(-value)) - truth
        np.testing.assert_allclose(c * residual @ far + coef, 0, atol=1e-6)
        np.testing.assert_allclose(residual.sum(), 0, atol=1e-6 / min(c, 1))


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_many_labellings_in_parts_are_fitted_as_one_by_one(x, weight, kind, monkeypatch) -> None:
    labels = np.random.default_rng(4).normal(size=(7, SCANS))
    labels = (labels > 0).astype(float) if kind == "classification" else labels
    weights = balanced(weight, labels) if kind == "classification" else weight
    monkeypatch.setattr(fits, "AT_A_TIME", 3 * (DIM + 1) ** 2)
    together = fit_layers(x, labels, weights, kind, 0.3)
    for row, truth in enumerate(labels):
        own = weights[row] if kind == "classification" else weights
        alone = fit_layers(x, truth, own, kind, 0.3)
        np.testing.assert_allclose(together.coef[row], alone.coef[0], atol=1e-9)
        np.testing.assert_allclose(together.intercept[row], alone.intercept[0], atol=1e-9)


def test_weights_by_which_classes_weigh_alike() -> None:
    weight, truth = np.array([1.0, 1, 2, 4]), np.array([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    of_two, of_one = balanced(weight, truth)
    assert of_two[truth[0] == 1].sum() == pytest.approx(4) == of_two[truth[0] == 0].sum()
    np.testing.assert_allclose(of_one, weight)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_refits_on_permuted_labels_are_the_probes_of_those_labels(x, kind) -> None:
    subjects = np.repeat(np.arange(SCANS // 2), 2).astype(str)
    labels = np.random.default_rng(5).normal(size=(3, SCANS))
    labels = (labels > 0).astype(float) if kind == "classification" else labels
    fit, held_out = np.arange(10, SCANS), np.arange(10)
    data = LabelledFeatures(x, labels[0], subjects, kind)
    scores = refitted_scores(data, labels, fit, held_out, 0.5)
    assert np.allclose(subject_weight(subjects[fit]), 1)
    for truth, score in zip(labels, scores, strict=True):
        probe = fit_linear(x[fit], truth[fit], subjects[fit], kind, folds=2, seed=0, strength=0.5)
        np.testing.assert_allclose(score, probe.score(x[held_out]), atol=1e-9)
