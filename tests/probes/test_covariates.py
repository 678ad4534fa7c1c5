"""Site and covariates: read alone, beside y_sem, and regressed out of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.probes.confounds.covariates import (
    COVARIATES,
    WITH_COVARIATES,
    WITHOUT_COVARIATES,
    ConfoundSets,
    confound_sets,
    residual_head,
)
from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.protocols import fit_probes
from schemas.evaluation import ProbeParams
from schemas.results import ProbeMetrics
from tests.support.probe_cohort import QUICK, assert_same_fit, cohort

TWO = QUICK.model_copy(
    update={"covariates": ("education", "scanner"), "residualise": True, "permutations": 40}
)


def people(count: int = 40, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    truth = np.arange(count) % 2.0
    table = pd.DataFrame(
        {
            "subject_id": [f"s{i}" for i in range(count)],
            "split": np.where(np.arange(count) % 4 == 3, "test", "train"),
            "education": generator.normal(12, 3, count),
            "scanner": generator.choice(["A", "B", "C"], count),
            "site": generator.choice(["Lund", "Oslo"], count),
        }
    )
    return truth, table


def sets(table: pd.DataFrame, truth: np.ndarray, *names: str, **more: Any) -> ConfoundSets:
    params = ProbeParams(covariates=names, **more)
    return confound_sets("diagnosis", truth, table, np.zeros((len(table), 3)), params)


def test_words_are_columns_of_zero_and_one_and_numbers_stay():
    truth, table = people()
    found = sets(table, truth, "education", "scanner")
    assert found.features["site"].shape == (40, 2)
    values = found.features[COVARIATES]
    np.testing.assert_allclose(values[:, 0], table["education"])
    np.testing.assert_array_equal(values[:, 1:].sum(axis=1), 1)
    assert found.features[WITH_COVARIATES].shape == (40, 7)
    assert WITHOUT_COVARIATES not in found.features
    assert not found.left_out


def test_without_site_and_covariates_nothing_changes():
    truth, table = people()
    found = sets(table.drop(columns="site"), truth)
    assert not found.features
    assert not found.left_out
    assert "site" not in sets(table.assign(site="Lund"), truth).features


@pytest.mark.parametrize(
    ("column", "line"),
    [
        (None, "no column bad in the manifest"),
        (lambda t, y: np.where(np.arange(40) < 10, np.nan, 1.0), "bad is missing for 10 of 40"),
        (lambda t, y: t["subject_id"], "bad holds 40 different words for 40 people"),
        (lambda t, y: 1.0, "bad is the same for all scans"),
        (lambda t, y: 3 - 2 * y, "diagnosis follows from bad without error"),
        (lambda t, y: np.where(y == 1, "sick", "well"), "diagnosis follows from bad without"),
    ],
)
def test_a_covariate_that_says_nothing_or_all_is_left_out_with_a_line(column, line):
    truth, table = people()
    if column is not None:
        table = table.assign(bad=column(table, truth))
    found = sets(table, truth, "bad", "education")
    assert line in found.left_out["diagnosis/covariates/bad"]
    assert found.features[COVARIATES].shape == (40, 1)


def test_the_target_is_no_covariate_of_its_own():
    truth, table = people()
    found = sets(table.assign(diagnosis=truth), truth, "diagnosis", "education")
    assert found.features[COVARIATES].shape == (40, 1)
    assert not found.left_out


def test_what_a_covariate_predicts_is_taken_out_by_the_fitting_scans_alone():
    generator = np.random.default_rng(3)
    age = generator.normal(size=80)
    x = np.outer(age, [2.0, -1.0, 0.0]) + 0.1 * generator.normal(size=(80, 3))
    data = LabelledFeatures(
        np.hstack([x, age[:, None]]), np.arange(80) % 2.0, np.arange(80), "classification"
    )
    fit, rest = data.take(np.arange(60)), data.take(np.arange(60, 80))
    probe = residual_head(fit, ProbeParams(), numbers=1)
    np.testing.assert_allclose(probe.coef[1], [2, -1, 0], atol=0.05)
    both = residual_head(data, ProbeParams(), numbers=1)
    assert not np.allclose(both.coef, probe.coef)
    moved = rest.features + np.array([2.0, -1.0, 0.0, 1.0])
    np.testing.assert_allclose(probe.score(moved), probe.score(rest.features), atol=0.02)


@pytest.mark.slow
def test_y_sem_beside_covariates_is_compared_with_them_alone_and_a_telling_site_is_named():
    features, table = cohort()
    subject = table["subject_id"].str[4:].astype(int).to_numpy()
    sick, old = subject % 2, table["age_years"] > 70
    generator = np.random.default_rng(0)
    mixed = generator.random(36)[subject] < 0.1
    table = table.assign(
        site=np.where(sick ^ mixed, "Lund", "Oslo"),
        education=generator.normal(12, 3, 36)[subject],
        scanner=np.where(old, "A", "B"),
    )
    params = TWO.model_copy(update={"folds": 3})
    again = table.assign(split=np.where(table["split"] == "train", "val", table["split"]))
    results = fit_probes(features, again, params)
    document = ProbeMetrics.model_validate_json(results.document().model_dump_json())
    added = document.added["cv"]
    assert added["diagnosis"]["covariates"]["roc_auc"].value > 0.2
    assert added["diagnosis"]["covariates"]["roc_auc"].excludes(0)
    assert set(document.cv["age_years"]) >= {COVARIATES, WITH_COVARIATES, WITHOUT_COVARIATES}
    assert document.cv["age_years"][COVARIATES]["mae"].value < 6  # the scanner tells old from young
    left = document.cv["age_years"][WITHOUT_COVARIATES]["mae_gain"].value
    assert left < document.cv["age_years"]["y_sem"]["mae_gain"].value - 1
    line = document.remarks["site/diagnosis"]
    assert line.startswith("diagnosis: the site alone reads it better than chance (ROC-AUC 0.8")
    assert "site/age_years" not in document.remarks


@pytest.mark.slow
def test_no_fitted_number_depends_on_labels_sites_or_covariates_of_test_subjects():
    features, table = cohort()
    generator = np.random.default_rng(1)
    table = table.assign(
        site=generator.choice(["Lund", "Oslo"], 72),
        scanner=generator.choice(["A", "B"], 72),
        education=generator.normal(size=72),
    )
    test = (table["split"] == "test").to_numpy()
    shuffled = table.copy()
    for column in ("diagnosis", "age_years", "site", "scanner", "education"):
        shuffled.loc[test, column] = np.roll(shuffled.loc[test, column].to_numpy(), 5)
    params = TWO.model_copy(update={"permutations": 0})
    first, second = (fit_probes(features, one, params) for one in (table, shuffled))
    assert {"site", WITHOUT_COVARIATES} <= set(first.fits["diagnosis"])
    assert_same_fit(first, second)
