"""Labels that are missing, constant or too few."""

from typing import Any

import numpy as np
import pytest

from pipeline.probes.protocols import fit_probes
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from tests.support.probe_cohort import PARAMS, QUICK, cohort


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "target", "reason"),
    [
        ({"diagnosis": "CN"}, "diagnosis", "0 subject(s) of class AD in train and val"),
        ({"diagnosis": "MCI"}, "diagnosis", "no scan carries CN or AD"),
        ({"diagnosis": np.nan}, "diagnosis", "no scan carries CN or AD"),
        ({"age_years": 70.0}, "age_years", "constant in train and val"),
        ({"age_years": "seventy"}, "age_years", "no scan carries a number"),
        ({"split": "train"}, "diagnosis", "no labelled scan in test"),
        ({"split": "test"}, "age_years", "0 labelled subject(s) in train and val"),
    ],
)
def test_a_target_that_cannot_be_judged_is_skipped_with_its_reason(
    change: dict[str, Any], target: str, reason: str
) -> None:
    features, table = cohort(12)
    results = fit_probes({"y_sem": features["y_sem"]}, table.assign(**change), QUICK)
    assert reason in results.skipped[target]
    assert target not in results.metrics


@pytest.mark.slow
@pytest.mark.parametrize("classes", [["0", "1"], [0, 1]])
def test_classes_may_be_numbers(classes: list[Any]) -> None:
    """Columns of numbers alone are read as such."""
    features, table = cohort(12)
    table = table.assign(amyloid=(table.diagnosis == "AD").astype(float))
    wanted = {"classification": {"amyloid": classes, "diagnosis": ["CN", "AD"]}}
    params = ProbeParams.model_validate(QUICK.model_dump() | wanted)
    metrics = fit_probes({"y_sem": features["y_sem"]}, table, params).metrics
    assert metrics["amyloid"]["y_sem"] == metrics["diagnosis"]["y_sem"]


def test_missing_columns_are_named() -> None:
    features, table = cohort(12)
    results = fit_probes(features, table.drop(columns=["age_years", "ventricle_ml"]), QUICK)
    assert (
        "age_years: no such column in the manifest (it has scan_id" in results.skipped["age_years"]
    )
    assert "no column ventricle_ml" in results.skipped["diagnosis/oracle"]
    unasked = QUICK.model_copy(update={"oracle": ProbeParams().oracle})
    without = fit_probes({"y_sem": features["y_sem"]}, table, unasked).skipped
    assert "diagnosis/oracle" not in without, "real people: true volumes were never asked for"
    assert "no column age_years" in results.skipped["diagnosis/age_sex"]
    assert set(results.metrics["diagnosis"]) == {"chance", "y_sem", "noise"}


@pytest.mark.slow
def test_scans_without_the_label_take_no_part() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.index % 6 > 1, "MCI"))
    results = fit_probes(features, table, QUICK)
    judged = results.predictions[results.predictions.target == "diagnosis"]
    labelled = table[table.diagnosis != "MCI"]
    assert set(judged.scan_id) <= set(labelled.scan_id)


@pytest.mark.slow
def test_one_class_in_test_leaves_what_is_defined() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.split != "test", "AD"))
    results = fit_probes(features, table, QUICK)
    assert "only AD in test" in results.skipped["diagnosis/roc_auc"]
    assert list(results.metrics["diagnosis"]["y_sem"]) == ["sensitivity"]
    assert 0 <= results.metrics["diagnosis"]["y_sem"]["sensitivity"].value <= 1


@pytest.mark.slow
def test_one_subject_of_a_class_in_test_has_no_rank() -> None:
    features, table = cohort()
    first = table.subject_id[table.split == "test"].iloc[0]
    lone = np.where(table.subject_id == first, "AD", "CN")
    table = table.assign(diagnosis=table.diagnosis.where(table.split != "test", lone))
    results = fit_probes(features, table, QUICK)
    assert "1 subject(s) of class AD in test" in results.skipped["diagnosis/roc_auc"]
    assert not {"roc_auc", "pr_auc"} & set(results.metrics["diagnosis"]["y_sem"])


@pytest.mark.slow
def test_a_few_missing_ages_do_not_cost_the_baseline_of_age_and_sex() -> None:
    features, table = cohort()
    train = table.index[table.split == "train"]
    few = table.assign(age_years=table.age_years.where(table.index != train[0]))
    fitted = fit_probes(features, few, QUICK).fits["diagnosis"]["age_sex"]
    mean = few.age_years[few.split == "train"].mean()
    told = fit_probes(features, few.fillna({"age_years": mean}), QUICK).fits["diagnosis"]["age_sex"]
    np.testing.assert_allclose(fitted.coef, told.coef, rtol=1e-4, atol=1e-6)
    many = table.assign(age_years=table.age_years.where(table.index % 3 == 0))
    results = fit_probes(features, many, QUICK)
    assert "age_years is missing for" in results.skipped["diagnosis/age_sex"]


def test_features_must_fit_the_table() -> None:
    features, table = cohort(12)
    with pytest.raises(ContractError, match=r"features y_sem: shape \(23, 7\), expected \(24, dim"):
        fit_probes({"y_sem": features["y_sem"][:-1]}, table, PARAMS)
    features["y_sem"][3, 2] = np.nan
    with pytest.raises(ContractError, match=f"NaN or infinite for {table.scan_id[3]}"):
        fit_probes(features, table, PARAMS)


@pytest.mark.slow
def test_scans_without_a_label_are_counted() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.index % 6 > 1, "MCI"))
    table.loc[:3, "diagnosis"] = np.nan
    remark = fit_probes(features, table, QUICK).remarks["diagnosis"]
    assert remark.startswith("diagnosis: 26 of 72 scans carry no CN or AD (22 MCI, 4 empty)")
