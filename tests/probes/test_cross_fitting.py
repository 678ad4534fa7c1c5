"""Probes judged by leaving out the folds of a cross-fitting."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.probes.cross_fitting import CrossFit
from pipeline.probes.feature_sets import FeatureInputs
from pipeline.probes.features import MeasuredVolumes
from pipeline.probes.linear import fit_linear
from pipeline.probes.protocols import fit_probes
from pipeline.stores.out_of_fold import OutOfFoldCodes
from schemas.errors import ContractError
from schemas.results import CrossfitResult, ProbeMetrics
from tests.support.probe_cohort import QUICK, cohort
from tests.support.tiny_models import CPU

FOLDS = 3
STORE = Path("crossfit") / "semantics.zarr"


def result(people: int) -> CrossfitResult:
    return CrossfitResult(folds=FOLDS, subjects=people, scans=2 * people)


def folds_of(table: pd.DataFrame, *, by: str = "subject") -> np.ndarray:
    """Return folds that spread the diagnoses, or those that part them."""
    number = table["subject_id"].str[4:].astype(int).to_numpy()
    return (number // 2) % FOLDS if by == "subject" else np.minimum(number % 2, FOLDS - 1)


def cross_fit(features, table, fold) -> CrossFit:
    people = table["subject_id"].nunique()
    return CrossFit(fold, [features] * FOLDS, result(people))


@pytest.mark.slow
def test_everybody_is_judged_once_by_a_probe_of_the_other_folds():
    features, table = cohort(24)
    fold = folds_of(table)
    results = fit_probes(features, table, QUICK, crossfit=cross_fit(features, table, fold))
    about = results.targets["diagnosis"].cv
    assert (about.folds, about.repeats, about.judged_on["all"].subjects) == (FOLDS, 1, 24)
    assert results.targets["diagnosis"].test.judged_on["all"].subjects == 8
    scores = results.predictions.query("protocol == 'cv' and feature_set == 'y_sem'")
    scores = scores[scores["target"] == "age_years"].set_index("scan_id")["score"]
    assert sorted(scores.index) == sorted(table["scan_id"])
    subjects, age = table["subject_id"].to_numpy(), table["age_years"].to_numpy()
    for left_out in range(FOLDS):
        fit = fold != left_out
        probe = fit_linear(
            features["y_sem"][fit],
            age[fit],
            subjects[fit],
            "regression",
            folds=QUICK.inner_folds,
            seed=0,
        )
        expected = probe.score(features["y_sem"][~fit])
        found = scores[table["scan_id"][~fit]].to_numpy(dtype=float)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    written = json.dumps(results.document().model_dump(), allow_nan=False)
    assert ProbeMetrics.model_validate_json(written).crossfit == result(24)


@pytest.mark.slow
def test_people_who_are_not_judged_help_the_fits_alone():
    features, table = cohort(24)
    fold = folds_of(table)
    crossfit = cross_fit(features, table, fold)
    judged = table["subject_id"].str[4:].astype(int).to_numpy() % 4 < 2
    some = fit_probes(features, table, QUICK, crossfit=replace(crossfit, judged=judged))
    everybody = fit_probes(features, table, QUICK, crossfit=crossfit)
    for target in ("diagnosis", "age_years"):
        assert some.targets[target].cv.judged_on["all"].subjects == 12
        scores = []
        for results in (some, everybody):
            rows = results.predictions.query("protocol == 'cv' and feature_set == 'y_sem'")
            scores.append(rows[rows["target"] == target].set_index("scan_id")["score"])
        assert sorted(scores[0].index) == sorted(table["scan_id"][judged])
        pd.testing.assert_series_equal(scores[0], scores[1][scores[0].index])


def test_where_nobody_is_left_to_judge_the_remedy_is_told():
    features, table = cohort(24)
    crossfit = cross_fit(features, table, folds_of(table))
    nobody = np.zeros(len(table), bool)
    results = fit_probes(features, table, QUICK, crossfit=replace(crossfit, judged=nobody))
    assert results.skipped["age_years/cv"].endswith(
        "or crossfit.judge: everybody for people whom the bundled LDAE saw"
    )


@pytest.mark.slow
def test_every_rival_is_compared_on_all_people():
    features, table = cohort(24)
    crossfit = cross_fit(features, table, folds_of(table))
    results = fit_probes(features, table, QUICK, crossfit=crossfit)
    figures = results.cv_metrics["age_years"]
    assert {f["mae"].subjects for f in figures.values()} == {24}
    assert {"noise", "age_sex", "oracle", "chance"} <= figures.keys()
    assert results.differences["cv"]["age_years"]["noise"]["mae"].subjects == 24


@pytest.mark.slow
def test_no_probe_reads_a_label_of_the_fold_that_it_judges():
    """Labels of one fold are exchanged: its scores stay, and only those of other folds change."""
    features, table = cohort(24)
    fold = folds_of(table)
    crossfit = cross_fit(features, table, fold)
    changed = table.copy()
    changed.loc[fold == 1, "age_years"] = np.roll(table.loc[fold == 1, "age_years"], 4)
    scores = []
    for labels in (table, changed):
        results = fit_probes(features, labels, QUICK, crossfit=crossfit)
        rows = results.predictions.query("protocol == 'cv' and feature_set == 'y_sem'")
        rows = rows[rows["target"] == "age_years"].set_index("scan_id")["score"]
        scores.append(rows[table["scan_id"]].to_numpy(dtype=float))
    np.testing.assert_allclose(scores[0][fold == 1], scores[1][fold == 1])
    assert np.abs(scores[0] - scores[1])[fold != 1].min() > 1e-6


def test_a_fold_without_a_class_is_told_and_the_other_targets_are_judged():
    features, table = cohort(24)
    crossfit = cross_fit(features, table, folds_of(table, by="diagnosis"))
    results = fit_probes(features, table, QUICK, crossfit=crossfit)
    assert "diagnosis" not in results.cv_metrics
    assert results.skipped["diagnosis/cv"] == (
        "diagnosis: no AD in fold 1 of the cross-fitting; set fewer crossfit.folds"
    )
    assert "no labelled scan in fold 3" in results.skipped["age_years/cv"]
    assert "diagnosis" in results.metrics


def test_rivals_are_fitted_without_the_fold_that_they_are_judged_on():
    """Whatever the scans of a fold look like, what the others are turned into stays the same."""
    _, table = cohort(12)
    fold = folds_of(table)
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(24, 2, 3, 4, 5)).astype(np.float32)
    coarse = generator.normal(size=(24, 30)).astype(np.float32)
    codes = generator.normal(size=(24, 6)).astype(np.float32)
    by_fold = generator.normal(size=(24, FOLDS, 6)).astype(np.float32)
    row_of = {scan: row for row, scan in enumerate(table["scan_id"])}
    digests = {f"ldae_fold_{k + 1}": "x" for k in range(FOLDS)}

    def features(moved: np.ndarray):
        inputs = FeatureInputs(
            table=table,
            mean=mean + 5 * generator_like(mean) * moved[:, None, None, None, None],
            measured=MeasuredVolumes(
                np.ones((24, 3)), np.ones((24, 4)), coarse + 9 * moved[:, None]
            ),
            latents=None,
            params=QUICK,
            device=CPU,
        )
        out_of_fold = OutOfFoldCodes(STORE, codes, by_fold, fold, row_of, digests, result(12))
        return inputs.cross_fit(out_of_fold, encoders=False)

    for left_out, sets in enumerate(features(np.zeros(24)).features):
        np.testing.assert_array_equal(sets["y_sem"], by_fold[:, left_out])
    first, second = features(np.zeros(24)), features((fold == 1).astype(float))
    for name in ("pca_latents", "pca_voxels", "pca_latents_matched", "pca_latents_ridge"):
        kept, same = first.features[1][name], second.features[1][name]
        np.testing.assert_allclose(kept[fold != 1], same[fold != 1], atol=1e-4, err_msg=name)
        other = first.features[0][name], second.features[0][name]
        assert np.abs(other[0] - other[1])[fold != 1].max() > 0.01, name


def generator_like(mean: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=mean.shape).astype(np.float32)


@pytest.mark.slow
def test_directions_are_fitted_on_out_of_fold_codes():
    """And what is judged on test keeps the codes of the study's own model."""
    features, table = cohort(24)
    row_of = {scan: row for row, scan in enumerate(table["scan_id"])}
    own = (features["y_sem"] * 0.5).astype(np.float32)
    codes = OutOfFoldCodes(STORE, own, own[:, None], folds_of(table), row_of, {}, result(24))
    y_sem = codes.in_place_of(features["y_sem"], table, splits=("train", "val"))
    fitted_on = table["split"].isin(["train", "val"]).to_numpy()
    direction = fit_probes({"y_sem": y_sem}, table, QUICK).directions["age_years"]
    np.testing.assert_allclose(direction.std, own[fitted_on].std(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(y_sem[~fitted_on], features["y_sem"][~fitted_on])


def test_a_scan_that_was_not_cross_fitted_is_named():
    _, table = cohort(12)
    missing = "sub-000_ses-0"
    row_of = {scan: row for row, scan in enumerate(table["scan_id"]) if scan != missing}
    codes = OutOfFoldCodes(
        STORE, np.zeros((23, 6)), np.zeros((23, 1, 6)), np.zeros(23, int), row_of, {}, result(12)
    )
    with pytest.raises(ContractError, match=r"first sub-000_ses-0; run\s+`pipeline crossfit`"):
        codes.rows_of(list(table["scan_id"]))
