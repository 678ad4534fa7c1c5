"""Middle visits filled in from both sides, measured where the truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cohort.middle_visits import MiddleVisit, middle_visits
from pipeline.evaluation.interpolation import (
    MEASURES,
    METHODS,
    gap_group,
    interpolate_middle_visit,
    score_middle_visit,
    summarise_interpolation,
)
from tests.support.volumes import SCAN


@pytest.mark.slow
def test_each_way_to_fill_in_a_visit_is_judged(models, opener):
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


@pytest.mark.slow
def test_at_a_visit_itself_detail_gives_the_scan_back(models, opener):
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


def test_errors_by_region_are_paired():
    rows = [
        {"scan_id": f"{i}", "subject_id": f"{i}", "method": method, "target": "scan"}
        | dict.fromkeys(MEASURES, error)
        | {"gap_months": 12.0, "region_error_ml frontal": error + i}
        for i in range(6)
        for method, error in (("ldae", 3.0), ("ldae_detail", 1.0), ("blend", 2.0))
    ]
    summary = summarise_interpolation(pd.DataFrame(rows))
    assert summary["by_region"]["frontal"]["blend"]["value"] == 4.5
    assert summary["by_region_minus"]["frontal"]["blend"]["value"] == -1
