"""Dose response and middle visits: measured where the truth is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.applications.manipulate import manipulate
from pipeline.evaluation.interpolation import (
    METHODS,
    MiddleVisit,
    gap_group,
    interpolate_middle_visit,
    middle_visits,
    score_middle_visit,
)
from pipeline.evaluation.manipulation import CounterfactualScorer, spearman, summarise_dose
from pipeline.imaging.template import mni_grid
from schemas.grid import GridParams
from tests.test_applications import (  # noqa: F401 (fixtures)
    SCAN,
    direction,
    ldae_path,
    models,
    opener,
    source,
)

pytestmark = pytest.mark.slow
"""Networks are trained first."""


def test_dose_response_has_a_row_a_scale(models, source, direction):  # noqa: F811
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


def on_template(models):  # noqa: F811
    return mni_grid(GridParams(shape=models.autoencoder.grid.shape, zooms=6.0))


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


def test_middle_visits_have_the_same_subject_on_both_sides():
    table = pd.DataFrame(
        {
            "scan_id": ["a0", "a2", "a1", "b0", "b1", "c0", "c1", "c2"],
            "subject_id": ["a", "a", "a", "b", "b", "c", "c", "c"],
            "months_from_first": [0, 24, 6, 0, 12, 0, np.nan, 12],
        }
    )
    (visit,) = middle_visits(table, set(table["scan_id"]))
    assert (visit.before, visit.scan_id, visit.after) == ("a0", "a1", "a2")
    assert (visit.alpha, visit.gap_months) == (0.25, 24)
    assert not middle_visits(table, {"a0", "a1"})


def test_each_way_to_fill_in_a_visit_is_judged(models, opener):  # noqa: F811
    sources = [opener.open(scan) for scan in (SCAN, "sub-017", "sub-018")]
    table = pd.DataFrame(
        {
            "scan_id": [s.scan_id for s in sources],
            "subject_id": "sub",
            "months_from_first": [0.0, 3, 12],
        }
    )
    (visit,) = middle_visits(table, set(table["scan_id"]))
    made = interpolate_middle_visit(models, visit, sources[0], sources[2])
    rows = score_middle_visit(models, visit, sources[1], made).set_index(["target", "method"])
    assert len(rows) == 2 * len(METHODS) - 1  # detail belongs to the real scan alone
    first, middle, last = (s.volume for s in sources)
    inside = middle > 0
    expected = np.square(0.75 * first + 0.25 * last - middle)[inside].mean()
    assert rows.loc[("scan", "blend"), "mse_brain"] == pytest.approx(expected, rel=1e-4)
    nearest = np.square(first - middle)[inside].mean()
    assert rows.loc[("scan", "nearest"), "mse_brain"] == pytest.approx(nearest, rel=1e-4)
    assert rows.loc[("scan", "blend"), "mse_brain"] < rows.loc[("scan", "nearest"), "mse_brain"]
    decoded = models.decode(torch.cat([s.z_0 for s in sources])).numpy()
    nearest = np.square(decoded[0] - decoded[1])[inside].mean()
    assert rows.loc[("decoded", "nearest"), "mse_brain"] == pytest.approx(nearest, rel=1e-3)


def test_at_a_visit_itself_detail_gives_the_scan_back(models, opener):  # noqa: F811
    """Interpolated at alpha 0, LDAE and detail differ from the scan by the round trip alone."""
    before, after = (opener.open(scan) for scan in (SCAN, "sub-017"))
    visit = MiddleVisit("sub", SCAN, "middle", "sub-017", 0.0, 12.0)
    made = interpolate_middle_visit(models, visit, before, after)["scan"]
    round_trip = made["ldae"] - models.decode(before.z_0)[0].numpy()
    wanted = (before.volume + round_trip).clip(0, 1)
    np.testing.assert_allclose(made["ldae_detail"], wanted, atol=1e-4)
    np.testing.assert_array_equal(made["nearest"], before.volume)


@pytest.mark.parametrize(
    ("months", "group"),
    [(6, "up to 6 months"), (7, "up to 12 months"), (36.0, "up to 36 months"),
     (60, "over 36 months")],
)  # fmt: skip
def test_gaps_are_grouped(months, group):
    assert gap_group(months) == group
