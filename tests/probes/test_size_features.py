"""Size of a head, which registration takes out of a latent."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from pipeline.metrics.auc_intervals import auc_interval
from pipeline.probes.estimators import Head, LabelledFeatures, linear_head
from pipeline.probes.features import measure_volumes, volume_features
from pipeline.probes.size_features import beside_head, log_scales
from schemas.evaluation import ProbeParams


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
    found = volume_features(measure_volumes(volumes, table), np.zeros(5, dtype=bool))
    assert found["size"].shape == (5, 4)
    np.testing.assert_allclose(found["size"][:, 3], np.log(found["measured_volumes"][:, 1]))


def cohort(told_by_size: float, told_by_y_sem: float) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Return people to fit on and to judge, of whom 124 numbers and 4 of size tell the class."""
    generator = np.random.default_rng(1)
    truth = np.repeat([0.0, 1.0], 60)
    y_sem, size = generator.normal(size=(120, 124)), generator.normal(size=(120, 4))
    y_sem[:, :20] += told_by_y_sem * truth[:, None]
    size += told_by_size * truth[:, None]
    subjects, rows = np.arange(120).astype(str), np.arange(120)
    data = LabelledFeatures(np.hstack([y_sem, size]), truth, subjects, "classification")
    return data.take(rows[::2]), data.take(rows[1::2])


def auc(head: Head, fit: LabelledFeatures, judged: LabelledFeatures) -> float:
    scores = head(fit, ProbeParams()).score(judged.features)[None]
    return auc_interval(judged.truth, scores, judged.subjects).value


@pytest.mark.slow
def test_four_numbers_of_size_are_heard_beside_hundreds_of_y_sem():
    fit, judged = cohort(told_by_size=1.0, told_by_y_sem=0.0)
    size = [replace(part, features=part.features[:, -4:]) for part in (fit, judged)]
    assert auc(beside_head, fit, judged) > auc(linear_head, fit, judged) + 0.1
    assert auc(beside_head, fit, judged) > auc(linear_head, *size) - 0.1


@pytest.mark.slow
def test_size_is_quiet_where_it_tells_nothing():
    fit, judged = cohort(told_by_size=0.0, told_by_y_sem=0.7)
    y_sem = [replace(part, features=part.features[:, :-4]) for part in (fit, judged)]
    assert auc(beside_head, fit, judged) > auc(linear_head, *y_sem) - 0.05


def test_what_is_constant_in_fitting_scans_does_no_harm():
    fit, judged = cohort(told_by_size=1.0, told_by_y_sem=0.0)
    fit.features[:, [3, -1]] = 5.0
    probe = beside_head(fit, ProbeParams())
    assert np.isfinite(probe.score(judged.features)).all()
    np.testing.assert_allclose(probe.coef[[3, -1]], 0, atol=1e-12)
