"""Future visits scored where the truth is known, and the part of the evaluation."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline.forecasting.held_out_visits import evaluate_forecast
from pipeline.forecasting.learned import repeated
from pipeline.forecasting.methods import Foreseen, FutureVisit, _own_line
from pipeline.forecasting.scores import ERRORS, score_visit, summarise_forecasts
from pipeline.measurement.region_intervals import fit_region_intervals
from pipeline.regions.lobes import LobeMeter
from schemas.grid import Grid
from tests.support.shrunken_brain import AFFINE, shrunken


@pytest.fixture(scope="session")
def heads():
    from pipeline.imaging.atlas.mni152 import load_template
    from tests.support.shrunken_brain import PARAMS

    template, inside = load_template(PARAMS)
    brain = (template * inside).astype(np.float32)
    return brain, shrunken(brain, 0.6)


def scored(heads, spread, truth, intervals=None):
    """Score one visit whose draws lie about `truth` as far as `spread`, or about the last visit."""
    before, after = heads
    generator = np.random.default_rng(0)
    draws = [
        np.clip(truth * (1 + spread * generator.normal()), 0, 1).astype(np.float32)
        for _ in range(16)
    ]
    kinds = ("scan", "decoded")
    foreseen = Foreseen(
        volumes={k: {"ldae": np.mean(draws, axis=0), "carried_forward": before} for k in kinds},
        draws={k: {"ldae": draws} for k in kinds},
    )
    visit = FutureVisit(
        subject_id="a", earlier=[None], months=[0.0], target_id="a_2", target_month=12.0
    )
    grid = Grid.model_validate({"shape": before.shape, "affine": AFFINE.tolist()})
    truths = dict.fromkeys(kinds, after)
    return score_visit(visit, foreseen, truths, LobeMeter(grid), intervals=intervals)


def test_intervals_of_regions_hold_what_narrow_draws_do_not(heads):
    """Draws that know nothing of the change, beside people whose regions vary by litres."""
    meter = LobeMeter(Grid.model_validate({"shape": heads[0].shape, "affine": AFFINE.tolist()}))
    names, generator = list(meter.measure(heads[0])), np.random.default_rng(0)
    measures = [dict.fromkeys(names, 1000 * generator.normal()) for _ in range(12)]
    months, people = np.tile([0.0, 12.0], 6), [str(i // 2) for i in range(12)]
    intervals = fit_region_intervals(measures, months, people)
    rows = scored(heads, 1e-5, heads[0], intervals).set_index(["target", "method"])
    ours = rows.loc[("scan", "ldae")]
    assert (ours["regions_covered"], ours["ventricles_covered"]) == (1, 1)
    assert ours["regions_in_draws"] < 1
    assert ours["ventricles_width_ml"] > 1000


def test_who_foresees_the_change_errs_less_and_is_held(heads):
    rows = scored(heads, 0.002, heads[1]).set_index(["target", "method"]).loc["scan"]
    for error in ("mse_brain", "region_error_percent"):
        assert rows.loc["ldae", error] < rows.loc["carried_forward", error]
    assert rows.loc["ldae", "regions_covered"] == 1
    assert np.isnan(rows.loc["carried_forward", "regions_covered"])
    narrow = scored(heads, 1e-5, heads[0]).set_index(["target", "method"]).loc["scan"]
    assert narrow.loc["ldae", "regions_covered"] < 1


def test_a_turned_head_is_laid_back_before_it_is_compared(heads):
    """Carried forward, a scan that differs by its registration alone has no error left."""
    before, _ = heads
    shift = np.eye(4)
    shift[0, 3] = 6.0
    moved = np.roll(before, 1, axis=0)  # 6 mm, one voxel, to the right
    kinds = ("scan", "decoded")
    foreseen = Foreseen(
        volumes={k: {"ldae": before, "carried_forward": before} for k in kinds},
        draws={kind: {} for kind in kinds},
    )
    visit = FutureVisit(subject_id="a", earlier=[None], months=[0.0], target_id="b", target_month=1)
    grid = Grid.model_validate({"shape": before.shape, "affine": AFFINE.tolist()})
    meter = LobeMeter(grid)
    truths = dict.fromkeys(kinds, moved)
    apart = score_visit(visit, foreseen, truths, meter)
    laid = score_visit(visit, foreseen, truths, meter, ways=(np.eye(4), shift))
    assert laid["mse_brain"].max() < 1e-3 * apart["mse_brain"].min()


def test_people_seen_once_tell_nothing():
    table = pd.DataFrame(
        {
            "scan_id": ["a1", "a2", "b1", "c1", "c2", "d1"],
            "subject_id": list("aabccd"),
            "months_from_first": [12.0, 0, 0, 3, 3, np.nan],
        }
    )
    assert repeated(table)["scan_id"].tolist() == ["a2", "a1"]


def test_the_own_line_goes_on_straight():
    volumes = [np.full((2, 3, 4), level, np.float32) for level in (0.2, 0.3, 0.4)]
    np.testing.assert_allclose(_own_line(volumes, [0.0, 6, 12], 18.0), 0.5, atol=1e-6)


def test_summary_is_paired_by_person():
    rows = [
        {"scan_id": f"{i}", "subject_id": f"{i}", "target": "scan", "method": method}
        | dict.fromkeys(ERRORS, value + i)
        | {"ventricles_covered": covered, "regions_covered": covered}
        for i in range(8)
        for method, value, covered in (("ldae", 1.0, 1.0), ("carried_forward", 2.0, np.nan))
    ]
    summary = summarise_forecasts(pd.DataFrame(rows))
    minus = summary["ldae_minus"]["scan"]["carried_forward"]["mse_brain"]
    assert minus["value"] == -1
    assert summary["coverage"]["scan"]["ldae"]["ventricles_covered"]["value"] == 1
    assert "carried_forward" not in summary["coverage"]["scan"]


@pytest.mark.slow
def test_last_visits_of_judged_people_are_foreseen(study):
    """Nobody of train comes twice: the part says so; with such people it is judged."""
    nobody = evaluate_forecast(study)
    assert "nobody has two visits" in nobody.metrics["skipped"]
    table = study.manifest.copy()
    train = table.index[table["split"] == "train"]
    table.loc[train, "subject_id"] = [f"pair-{i // 2}" for i in range(len(train))]
    table.loc[train, "months_from_first"] = [12.0 * (i % 2) for i in range(len(train))]
    part = evaluate_forecast(dataclasses.replace(study, manifest=table))
    assert part.metrics["people"] == 1
    assert part.metrics["fitted_people"] == 6
    assert part.metrics["beyond_seen"] == 1  # 18 months after the last, 12 seen
    methods = set(part.per_scan["method"])
    assert {"ldae", "carried_forward", "latent_trend", "voxel_trend", "voxel_trend_own"} == methods
    assert {"before", "scan", "ldae", "spread"} <= part.pictures.keys()
    once = table[~table["subject_id"].eq("sub-visits")]
    alone = evaluate_forecast(dataclasses.replace(study, manifest=once))
    assert "no subject of the test split has two dated visits" in alone.metrics["skipped"]
