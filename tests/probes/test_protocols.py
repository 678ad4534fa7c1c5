"""Probes: what they find, and what their results hold."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.probes.protocols import fit_probes
from pipeline.probes.results import PREDICTION_COLUMNS, ProbeResults
from schemas.results import Counts, ProbeMetrics
from tests.support.probe_cohort import QUICK, assert_same_fit, cohort


@pytest.mark.slow
def test_signal_is_found_and_noise_is_not(results: ProbeResults) -> None:
    for metrics in (results.metrics, results.cv_metrics):
        diagnosis, age = metrics["diagnosis"], metrics["age_years"]
        assert diagnosis["y_sem"]["roc_auc"].value > 0.9
        assert diagnosis["noise"]["roc_auc"].value < diagnosis["y_sem"]["roc_auc"].value
        assert diagnosis["chance"]["roc_auc"].value == 0.5
        assert diagnosis["chance"]["balanced_accuracy"].value == 0.5
        assert age["y_sem"]["mae_gain"].value > 0
        assert age["y_sem"]["gap_closed"].value < 1.2
        assert "gap_closed" not in age["chance"]
        assert age["oracle"]["mae"].value < age["chance"]["mae"].value
    assert results.differences["test"]["diagnosis"].keys() >= {"noise", "age_sex"}
    assert results.metrics["diagnosis"]["y_sem"]["roc_auc"].low > 0.5
    few = results.cv_metrics["diagnosis"]["y_sem"]["roc_auc"]
    assert few.low is None, "nine subjects of a class are too few to know of other fits"


@pytest.mark.slow
def test_intervals_rest_on_subjects(results: ProbeResults) -> None:
    assert results.metrics["diagnosis"]["y_sem"]["roc_auc"].subjects == 12
    assert results.cv_metrics["diagnosis"]["y_sem"]["roc_auc"].subjects == 18
    described = results.targets["diagnosis"]
    assert (described.positive, described.negative) == ("AD", "CN")
    assert described.test.fitted_on["all"] == Counts(scans=48, subjects=24)
    assert described.test.judged_on["AD"].subjects == 6


@pytest.mark.slow
def test_results_are_json(results: ProbeResults) -> None:
    written = json.dumps(results.document().model_dump(), allow_nan=False)
    assert ProbeMetrics.model_validate_json(written).test == results.metrics


@pytest.mark.slow
def test_predictions_reproduce_the_metrics(results: ProbeResults) -> None:
    table = results.predictions
    assert list(table.columns) == list(PREDICTION_COLUMNS)
    assert set(table[table.protocol == "test"].split) == {"test"}
    assert set(table[table.protocol == "cv"].split) == {"val", "test"}
    assert not table.duplicated(["scan_id", "target", "feature_set", "protocol", "repeat"]).any()
    rows = table[
        (table.target == "diagnosis") & (table.feature_set == "y_sem") & (table.protocol == "test")
    ]
    expected = sk.roc_auc_score(rows.truth.astype(float), rows.score.astype(float))
    assert results.metrics["diagnosis"]["y_sem"]["roc_auc"].value == pytest.approx(expected)


@pytest.mark.slow
def test_direction_points_to_the_positive_class(results: ProbeResults) -> None:
    direction = results.directions["diagnosis"]
    assert np.linalg.norm(direction.weight) == pytest.approx(1)
    assert direction.towards == "diagnosis:AD"
    assert int(np.argmax(direction.weight)) == 2
    features, table = cohort()
    fitted_on = table.split.isin(["train", "val"]).to_numpy()
    np.testing.assert_allclose(direction.mean, features["y_sem"][fitted_on].mean(axis=0))
    np.testing.assert_allclose(direction.std, features["y_sem"][fitted_on].std(axis=0))
    standardised = (features["y_sem"][fitted_on] - direction.mean) / direction.std
    assert direction.spread == pytest.approx((standardised @ direction.weight).std())
    assert results.directions["age_years"].towards == "age_years"


@pytest.mark.slow
def test_row_order_changes_nothing() -> None:
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    order = np.random.default_rng(5).permutation(len(table))
    shuffled = {name: values[order] for name, values in features.items()}
    again = fit_probes(shuffled, table.iloc[order], QUICK)
    assert_same_fit(results, again)
    assert again.metrics == results.metrics
    assert again.cv_metrics == results.cv_metrics


@pytest.mark.slow
def test_other_heads_find_signal_and_are_judged_alike(results: ProbeResults) -> None:
    for head in ("y_sem_knn", "y_sem_mlp"):
        assert results.metrics["diagnosis"][head]["roc_auc"].value > 0.75
        assert results.cv_metrics["age_years"][head]["mae"].subjects == 18
    assert results.targets["diagnosis"].cv.repeats == 2


@pytest.mark.slow
def test_signal_is_rare_among_permuted_labels(results: ProbeResults) -> None:
    for protocol in ("test", "cv"):
        assert results.targets["diagnosis"].sizes(protocol).permutation.p == pytest.approx(1 / 21)
    features, table = cohort()
    noise = {"y_sem": features["noise"]}
    params = QUICK.model_copy(update={"permutations": 20})
    p = fit_probes(noise, table, params).targets["diagnosis"].cv.permutation.p
    assert p > 0.1
