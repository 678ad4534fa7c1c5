"""Size of a head, which registration takes out of a latent."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from pipeline.metrics.auc_intervals import auc_interval
from pipeline.probes.features import volume_features
from pipeline.probes.linear import fit_linear
from pipeline.probes.size_features import beside, log_scales


def test_log_scales_are_of_the_templates_axes_however_the_head_lay():
    stretch = np.diag([1.2, 0.9, 1.05])
    for seed in range(3):
        affine = np.eye(4)
        affine[:3, :3] = stretch @ Rotation.random(random_state=seed).as_matrix()
        affine[:3, 3] = [10, -20, 30]
        np.testing.assert_allclose(log_scales(affine), np.log(np.diag(stretch)), atol=1e-12)


def test_log_scales_add_up_to_the_logarithm_of_the_determinant():
    affine = np.eye(4)
    affine[:3, :3] += 0.2 * np.random.default_rng(0).normal(size=(3, 3))
    determinant = np.linalg.det(affine[:3, :3])
    assert log_scales(affine).sum() == pytest.approx(np.log(abs(determinant)))


def test_size_of_a_store_is_three_scales_and_the_log_of_the_brains_volume(volumes, split):
    table = pd.DataFrame({"scan_id": split["test"], "split": "test"})
    found = volume_features(volumes, table)
    assert found["size"].shape == (5, 4)
    np.testing.assert_allclose(found["size"][:, 3], np.log(found["measured_volumes"][:, 1]))


def test_four_numbers_of_size_are_heard_beside_hundreds_of_y_sem():
    generator = np.random.default_rng(1)
    truth = np.repeat([0.0, 1.0], 60)
    size = generator.normal(size=(120, 4)) + truth[:, None] * [1.2, 0.8, 0.0, 0.8]
    y_sem, fit = generator.normal(size=(120, 256)), np.tile([True, False], 60)
    subjects = np.arange(120).astype(str)

    def auc(features, *, scaled):
        probe = fit_linear(
            features[fit], truth[fit], subjects[fit], "classification", folds=3, seed=0,
            scaled=scaled,
        )  # fmt: skip
        return auc_interval(truth[~fit], probe.score(features[~fit])[None], subjects[~fit]).value

    alone, plain = auc(size, scaled=True), auc(np.hstack([y_sem, size]), scaled=True)
    together = auc(beside(y_sem, size, fit), scaled=False)
    assert together > plain + 0.1
    assert together > alone - 0.1


def test_what_is_constant_in_fitting_scans_is_left_out():
    generator = np.random.default_rng(2)
    y_sem, size = generator.normal(size=(9, 3)), generator.normal(size=(9, 4))
    fit = np.arange(9) < 6
    y_sem[fit, 1] = 5
    made = beside(y_sem, size, fit)
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(made[:, 1], 0)
    np.testing.assert_allclose(made[fit].mean(axis=0), 0, atol=1e-12)
