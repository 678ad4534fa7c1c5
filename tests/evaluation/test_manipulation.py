"""Dose response, and the step along PCA it is compared with."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline.applications.manipulate import manipulate
from pipeline.evaluation.manipulation import (
    CounterfactualScorer,
    _unmoved,
    evaluate_manipulation,
    scales_of,
    summarise_dose,
)
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.metrics.dose_response import spearman
from pipeline.models.direction import Direction
from schemas.evaluation import ManipulationParams
from schemas.grid import GridParams


@pytest.mark.slow
def test_manipulation_without_its_direction_says_why(study, tmp_path):
    without = evaluate_manipulation(dataclasses.replace(study, directions=None))
    assert "no --directions" in without.metrics["skipped"]
    asked = study.params.model_copy(
        update={"manipulation": study.params.manipulation.model_copy(update={"direction": "sex:M"})}
    )
    unknown = evaluate_manipulation(dataclasses.replace(study, params=asked))
    assert "directions.json: diagnosis:AD; set evaluate" in unknown.metrics["skipped"]


@pytest.mark.slow
def test_dose_response_has_a_row_a_scale(models, source, direction):
    shifted = dataclasses.replace(models.autoencoder, grid=on_template(models))
    scales = (-1.0, 0.0, 1.0)
    there = dataclasses.replace(models, autoencoder=shifted)
    own, moved = there.decode(source.z_0)[0], manipulate(there, source.z_0, direction, scales)
    table = CounterfactualScorer(models=there, direction=direction).measure(
        own.numpy(), moved.volumes, scales
    )
    assert table["scale"].tolist() == list(scales)
    assert np.isfinite(table.to_numpy()).all()
    assert table["identity"].iloc[1] <= 1


def test_what_moves_most_at_the_farthest_scale_is_left_out():
    own = np.full((10, 10, 10), 0.5, np.float32)
    own[0] = 0  # no brain
    generator = np.random.default_rng(0)
    made = own + 0.001 * generator.random((3, 10, 10, 10)).astype(np.float32)
    made[2, 5, :5] += 0.3
    rest = _unmoved(own, made, [0.0, 1.0, -2.0])
    assert not rest[0].any()
    assert not rest[5, :5].any()
    assert rest.sum() == pytest.approx(0.9 * 900, abs=1)


def test_likeness_is_summed_up_by_person():
    rows = pd.DataFrame(
        {
            "scan_id": list("aabb"),
            "subject_id": list("aabb"),
            "method": "ldae",
            "scale": [0.0, 1, 0, 1],
            "score": [0.0, 1, 0, 1],
            "pca_score": np.nan,
            "ventricle_ml": [1.0, 2, 1, 2],
            "unmoved_identity": [1.0, 0.8, 1, 0.6],
            "unmoved_change": [0.0, 2, 0, 4],
            "other_scan": [1.0, 0.0, np.nan, np.nan],
        }
    )
    summary = summarise_dose(rows)["ldae"]
    assert summary["unmoved_identity"]["value"] == pytest.approx(0.7)
    assert summary["unmoved_change"]["value"] == pytest.approx(3)
    assert (summary["other_scan"]["value"], summary["other_scan"]["subjects"]) == (0.5, 1)


def on_template(models):
    return mni_grid(GridParams(shape=models.autoencoder.grid.shape, zooms=6.0))


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_published_scales_go_as_far_whatever_the_spread(spread):
    weight = np.array([0.6, 0.0, 0.8, 0.0])
    direction = Direction(weight, np.zeros(4), np.full(4, 2.0), spread, "diagnosis:AD")
    params = ManipulationParams(scales=(-2.5, 0.0, 1.0), unit="published")
    scales, unit = scales_of(params, direction)
    # s · sqrt(dim) · weight in standardised y_sem, so times std in y_sem.
    moved = np.outer(scales, direction.step)
    np.testing.assert_allclose(moved, np.outer([-2.5, 0, 1], np.sqrt(4) * weight * 2.0))
    assert unit == "published scale s"
    own, unit = scales_of(params.model_copy(update={"unit": "spread"}), direction)
    assert (own, unit) == ([-2.5, 0.0, 1.0], "SD along the direction")
    unknown = dataclasses.replace(direction, assumed_spread=True)
    assert scales_of(ManipulationParams(), unknown)[1] == "units of standardised y_sem"


def test_dose_is_summarised_over_scans():
    scale = np.array([-1.0, 0, 1, 2])
    table = pd.concat(
        pd.DataFrame(
            {
                "scan_id": scan,
                "subject_id": scan,
                "method": "ldae",
                "scale": scale,
                "score": score,
                "ventricle_ml": ml,
                "identity": [0.9, 1.0, 0.8, 0.95],
            }
        )
        for scan, score, ml in (
            ("a", scale**3, [1, 2, 3, 4]),
            ("b", scale, [4, 3, 2, 1]),
            ("c", 5 + scale, [7, 7, 7, 7]),
        )
    )
    summary = summarise_dose(table)["ldae"]
    values = {name: estimate["value"] for name, estimate in summary["score"].items()}
    assert values["spearman"] == 1.0
    assert values["rising"] == 1.0
    assert summary["ventricle_ml"]["spearman"]["value"] == 0.0
    assert summary["ventricle_ml"]["rising"]["value"] == pytest.approx(1 / 3)
    assert summary["ventricle_ml"]["per_scale"]["value"] == pytest.approx(0)
    assert summary["ventricle_ml"]["rising"]["subjects"] == 3
    assert summary["identity"]["value"] == pytest.approx(0.8)
    assert spearman(scale, np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
