"""Features of others beside those of the study."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.probes.linear import fit_linear
from pipeline.probes.pca_rivals import matched_components, spectrum, unwhitened
from pipeline.probes.probe_intervals import probe_differences
from pipeline.probes.protocols import fit_probes
from pipeline.probes.rivals import read_rivals
from schemas.errors import ContractError
from tests.support.probe_cohort import QUICK, cohort


def test_rivals_are_compared_on_the_same_scans() -> None:
    generator = np.random.default_rng(4)
    truth, subjects = generator.normal(size=40), np.arange(40).astype(str)
    noise = generator.normal(size=40)
    scores = {"y_sem": (truth + 0.5 * noise)[None], "rival": (truth + noise)[None]}
    found = probe_differences(truth, scores, subjects, "regression", first="y_sem")
    assert found["rival"]["mae"].excludes(0)
    assert found["rival"]["mae"].value == pytest.approx(-0.5 * np.abs(noise).mean())


SCANS = pd.DataFrame(
    {"scan_id": [f"s{i}" for i in range(10)], "split": ["train"] * 8 + ["test"] * 2}
)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.drop(columns="scan_id"), "left out, it has no column scan_id"),
        (lambda t: t[["scan_id"]], "left out, it has no column of numbers"),
        (lambda t: t.head(1).assign(scan_id="x"), "left out, it has a whole row of no scan"),
        (lambda t: t.head(7), "3 of 10 scans have no or no whole row, first s7; it is read, and"),
        (
            lambda t: pd.concat([t, t.head(1).assign(volume=9.0)]),
            "left out, s0 has rows that differ; keep one row a scan",
        ),
        (
            lambda t: pd.concat([t, t.head(1).assign(scan_id="x")]),
            "1 row(s) are of no scan that is judged, first x",
        ),
    ],
)
def test_an_odd_table_of_a_rival_is_told_in_one_line(change, line, tmp_path):
    good = SCANS[["scan_id"]].assign(volume=np.arange(10.0), note="a")
    good.to_csv(tmp_path / "good.csv", index=False)
    change(good.drop(columns="note")).to_csv(tmp_path / "odd.csv", index=False)
    rivals = {"odd": tmp_path / "odd.csv", "good": tmp_path / "good.csv"}
    features, lines = read_rivals(rivals, SCANS, ["y_sem"])
    assert line in lines["odd"]
    assert "\n" not in lines["odd"]
    assert "good" not in lines
    np.testing.assert_array_equal(features["good"][:, 0], np.arange(10))
    assert ("odd" in features) == ("left out" not in line)


def test_a_rival_that_is_no_table_or_has_a_taken_name_is_left_out(tmp_path):
    (tmp_path / "y.csv").write_text("scan_id,volume\ns0,1\n")
    rivals = {"y_sem": tmp_path / "y.csv", "gone": tmp_path / "gone.csv"}
    features, lines = read_rivals(rivals, SCANS, ["y_sem"])
    assert not features
    assert "the pipeline has features of that name" in lines["y_sem"]
    assert "No such file" in lines["gone"]


def test_a_matched_pca_has_the_size_and_spectrum_of_y_sem() -> None:
    generator = np.random.default_rng(7)
    y_sem = generator.normal(size=(30, 6)) @ np.diag([5.0, 3, 1, 1, 0.5, 0.1])
    scores = generator.normal(size=(30, 20)) * np.arange(20, 0, -1)
    fit = np.arange(30) < 24
    scores[:, :] -= scores[fit].mean(axis=0)
    scores = scores @ np.linalg.svd(scores[fit], full_matrices=False)[2].T
    matched = matched_components(scores, y_sem, fit, seed=0)
    assert matched.shape == y_sem.shape
    np.testing.assert_allclose(spectrum(matched[fit]), spectrum(y_sem[fit]), rtol=1e-6)


def test_unwhitened_components_keep_their_spreads() -> None:
    """Two features tell the label, one of large spread and one of small; the penalty spares one."""
    generator = np.random.default_rng(8)
    truth = np.repeat([0.0, 1.0], 30)
    x = (generator.normal(size=(60, 2)) + truth[:, None]) * [10.0, 0.1]
    subjects = np.arange(60).astype(str)
    given: dict[str, Any] = {"folds": 2, "seed": 0, "strength": 0.1}
    whitened = fit_linear(x, truth, subjects, "classification", **given)
    kept = fit_linear(x, truth, subjects, "classification", **given, scaled=False)
    assert abs(whitened.coef[1]) > 0.2 * whitened.coef[0]
    assert abs(kept.coef[1]) < 0.1 * kept.coef[0]
    again, heads = unwhitened({"pca_latents": x})
    assert set(again) == set(heads) == {"pca_latents_ridge"}


@pytest.mark.slow
def test_a_rival_that_lacks_scans_is_compared_on_those_it_has() -> None:
    features, table = cohort()
    params = QUICK.model_copy(update={"rivals": {"volumes": Path("x"), "few": Path("y")}})
    sick = (table["diagnosis"] == "AD").to_numpy(dtype=float)
    rival = np.random.default_rng(2).normal(size=(72, 2)) + sick[:, None]
    rival[[3, 20, 41, 70]] = np.nan
    few = np.full((72, 1), np.nan)
    few[table["diagnosis"] == "CN"] = 1.0
    results = fit_probes(features | {"volumes": rival, "few": few}, table, params)
    there = np.isfinite(rival).all(axis=1)
    scans = set(table["scan_id"][there])
    rows = results.predictions.query("feature_set == 'volumes' and protocol == 'cv'")
    assert set(rows["scan_id"]) <= scans
    y_sem = results.predictions.query("feature_set == 'y_sem' and protocol == 'cv'")
    assert len(rows) < len(y_sem)
    both = y_sem.merge(rows, on=["scan_id", "target", "repeat"], suffixes=("", "_rival"))
    age = both[both["target"] == "age_years"]
    error, other = (abs(age[s] - age["truth"]) for s in ("score", "score_rival"))
    by_subject = (error - other).groupby(age["subject_id"]).mean()
    difference = results.differences["cv"]["age_years"]["volumes"]["mae"]
    assert difference.value == pytest.approx(by_subject.mean())
    without = fit_probes(features, table, params).cv_metrics["age_years"]
    assert results.cv_metrics["age_years"]["y_sem"] == without["y_sem"]
    assert "volumes" in results.cv_metrics["diagnosis"]
    assert "0 subject(s) of class AD in the scans of few" in results.skipped["diagnosis/few/test"]
    assert results.skipped["diagnosis/few/cv"].endswith("so it is not read (cross-validated)")
    assert "few" not in results.metrics["diagnosis"]


def test_features_of_the_pipeline_itself_lack_no_scan() -> None:
    features, table = cohort(6)
    features["noise"][2] = np.nan
    with pytest.raises(ContractError, match="features noise: NaN or infinite for"):
        fit_probes(features, table, QUICK)
