"""Probes: what they find, what they must never see, and what they say when they cannot judge."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.metrics.bootstrap import subject_draws, subject_weights
from pipeline.metrics.prediction_scores import classification_scores, rank_areas, regression_scores
from pipeline.probes.linear import C_GRID, LARGE, fit_linear, many_fits
from pipeline.probes.protocols import PREDICTION_COLUMNS, ProbeResults, fit_probes
from pipeline.probes.supervised_encoder import SupervisedHead, random_encoder_codes
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.metrics import Prediction
from schemas.results import Counts, ProbeMetrics
from tests.conftest import MadeOnce

pytestmark = pytest.mark.slow

PARAMS = ProbeParams(
    classification={"diagnosis": ("CN", "AD")},
    regression=("age_years",),
    oracle=("ventricle_ml",),
    bootstrap=60,
    folds=3,
    repeats=2,
    permutations=20,
)

QUICK = PARAMS.model_copy(
    update={"bootstrap": 10, "folds": 2, "repeats": 1, "permutations": 0, "heads": ()}
)


def cohort(subjects: int = 36, seed: int = 0) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Return features that carry diagnosis and age, and a manifest with two visits each."""
    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), 2)
    sick = (np.arange(subjects) % 2)[subject]
    age = generator.uniform(55, 85, subjects)[subject]
    split = np.array(["train", "train", "train", "val", "test", "test"])[np.arange(subjects) % 6]
    table = pd.DataFrame(
        {
            "scan_id": [f"sub-{s:03d}_ses-{v}" for v, s in enumerate(subject)],
            "subject_id": [f"sub-{s:03d}" for s in subject],
            "age_years": age,
            "sex": np.where(generator.random(subjects)[subject] < 0.5, "F", "M"),
            "diagnosis": np.where(sick == 1, "AD", "CN"),
            "ventricle_ml": 20 + 0.8 * (age - 55) + 2 * sick,
            "split": split[subject],
        }
    )
    y_sem = generator.normal(size=(2 * subjects, 7))
    y_sem[:, 2] += 2.5 * sick
    y_sem[:, 4] = 5 * y_sem[:, 4] + age
    return {"y_sem": y_sem, "noise": generator.normal(size=(2 * subjects, 5))}, table


def fitted_numbers(results: ProbeResults) -> dict[str, Any]:
    return {
        f"{target}/{name}": p.numbers()
        for target, fits in results.fits.items()
        for name, p in fits.items()
    } | {
        f"{t}/direction": (d.weight, d.mean, d.std, d.spread) for t, d in results.directions.items()
    }


def assert_same_fit(one: ProbeResults, two: ProbeResults) -> None:
    first, second = fitted_numbers(one), fitted_numbers(two)
    assert first.keys() == second.keys()
    for key, numbers in first.items():
        for a, b in zip(numbers, second[key], strict=True):
            # A leak moves them by whole units; another alignment in memory, the last bits.
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.fixture(scope="module")
def results(made_once: MadeOnce) -> ProbeResults:
    return made_once("probes", lambda _: fit_probes(*cohort(), PARAMS))


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


def test_intervals_rest_on_subjects(results: ProbeResults) -> None:
    assert results.metrics["diagnosis"]["y_sem"]["roc_auc"].subjects == 12
    assert results.cv_metrics["diagnosis"]["y_sem"]["roc_auc"].subjects == 18
    described = results.targets["diagnosis"]
    assert (described.positive, described.negative) == ("AD", "CN")
    assert described.test.fitted_on["all"] == Counts(scans=48, subjects=24)
    assert described.test.judged_on["AD"].subjects == 6


def test_results_are_json(results: ProbeResults) -> None:
    written = json.dumps(results.document().model_dump(), allow_nan=False)
    assert ProbeMetrics.model_validate_json(written).test == results.metrics


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


def test_no_fitted_number_depends_on_the_test_subjects() -> None:
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    test = (table.split == "test").to_numpy()
    shuffled = table.copy()
    for column in ("diagnosis", "age_years", "sex", "ventricle_ml"):
        shuffled.loc[test, column] = np.roll(shuffled.loc[test, column].to_numpy(), 5)
    assert_same_fit(results, fit_probes(features, shuffled, QUICK))
    moved = {name: values + 1000 * test[:, None] for name, values in features.items()}
    assert_same_fit(results, fit_probes(moved, table, QUICK))
    kept = ~test
    without = {name: values[kept] for name, values in features.items()}
    assert_same_fit(results, fit_probes(without, table[kept], QUICK))


def test_row_order_changes_nothing() -> None:
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    order = np.random.default_rng(5).permutation(len(table))
    shuffled = {name: values[order] for name, values in features.items()}
    again = fit_probes(shuffled, table.iloc[order], QUICK)
    assert_same_fit(results, again)
    assert again.metrics == results.metrics
    assert again.cv_metrics == results.cv_metrics


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


def test_scans_without_the_label_take_no_part() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.index % 6 > 1, "MCI"))
    results = fit_probes(features, table, QUICK)
    judged = results.predictions[results.predictions.target == "diagnosis"]
    labelled = table[table.diagnosis != "MCI"]
    assert set(judged.scan_id) <= set(labelled.scan_id)


def test_one_class_in_test_leaves_what_is_defined() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.split != "test", "AD"))
    results = fit_probes(features, table, QUICK)
    assert "only AD in test" in results.skipped["diagnosis/roc_auc"]
    assert list(results.metrics["diagnosis"]["y_sem"]) == ["sensitivity"]
    assert 0 <= results.metrics["diagnosis"]["y_sem"]["sensitivity"].value <= 1


def test_one_subject_of_a_class_in_test_has_no_rank() -> None:
    features, table = cohort()
    first = table.subject_id[table.split == "test"].iloc[0]
    lone = np.where(table.subject_id == first, "AD", "CN")
    table = table.assign(diagnosis=table.diagnosis.where(table.split != "test", lone))
    results = fit_probes(features, table, QUICK)
    assert "1 subject(s) of class AD in test" in results.skipped["diagnosis/roc_auc"]
    assert not {"roc_auc", "pr_auc"} & set(results.metrics["diagnosis"]["y_sem"])


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


def test_sex_is_not_a_covariate_of_sex() -> None:
    features, table = cohort()
    params = PARAMS.model_copy(update={"classification": {"sex": ("F", "M")}, "regression": ()})
    results = fit_probes(features, table, params)
    assert results.fits["sex"]["age_sex"].coef.shape == (1,)


def test_features_must_fit_the_table() -> None:
    features, table = cohort(12)
    with pytest.raises(ContractError, match=r"features y_sem: shape \(23, 7\), expected \(24, dim"):
        fit_probes({"y_sem": features["y_sem"][:-1]}, table, PARAMS)
    features["y_sem"][3, 2] = np.nan
    with pytest.raises(ContractError, match=f"NaN or infinite for {table.scan_id[3]}"):
        fit_probes(features, table, PARAMS)


def test_strength_is_picked_inside_the_fitting_rows() -> None:
    generator = np.random.default_rng(0)
    subjects = np.arange(60)
    truth = (subjects % 2).astype(float)
    noise = generator.normal(size=(60, 40))
    weak = fit_linear(noise, truth, subjects, "classification", folds=5, seed=0)
    assert weak.strength is not None
    assert weak.strength <= C_GRID[1]
    clear = fit_linear(
        truth[:, None] + 0.1 * noise, truth, subjects, "classification", folds=5, seed=0
    )
    assert clear.strength is not None
    assert clear.strength > weak.strength


def test_scores_equal_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random(40) < 0.3).astype(float)
    score = np.round(generator.random(40), 1)
    weights = generator.integers(0, 4, size=(3, 40)).astype(float)
    found = classification_scores(truth, score, np.concatenate([np.ones((1, 40)), weights]))
    for draw, weight in enumerate([np.ones(40), *weights]):
        rows = np.repeat(np.arange(40), weight.astype(int))
        t, s, called = truth[rows], score[rows], score[rows] >= 0.5
        bins = np.minimum((s * 10).astype(int), 9)
        gaps = [abs((s - t)[bins == b].sum()) for b in range(10)]
        expected = {
            "roc_auc": sk.roc_auc_score(t, s),
            "pr_auc": sk.average_precision_score(t, s),
            "balanced_accuracy": sk.balanced_accuracy_score(t, called),
            "accuracy": sk.accuracy_score(t, called),
            "sensitivity": sk.recall_score(t, called),
            "specificity": sk.recall_score(t, called, pos_label=0),
            "f1": sk.f1_score(t, called),
            "mcc": sk.matthews_corrcoef(t, called),
            "brier": sk.brier_score_loss(t, s),
            "calibration_error": sum(gaps) / len(rows),
        }
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(expected)


def test_areas_compare_within_folds() -> None:
    generator = np.random.default_rng(1)
    truth = (generator.random(40) < 0.4).astype(float)
    score = generator.random(40).round(1)
    fold = np.arange(40) % 3
    shifted = score + fold
    pairs = [(f == g) & (t > u) for t, f in zip(truth, fold, strict=True)
             for u, g in zip(truth, fold, strict=True)]  # fmt: skip
    wins = [(s > r) + 0.5 * (s == r) for s in shifted for r in shifted]
    within = classification_scores(truth, np.clip(shifted, 0, 1), None, fold)
    roc, pr = rank_areas(truth == 1, shifted, np.ones((1, 40)), fold)
    assert roc[0] == pytest.approx(np.array(wins)[np.array(pairs)].mean())
    each = [sk.average_precision_score(truth[fold == f], shifted[fold == f]) for f in range(3)]
    share = [truth[fold == f].sum() for f in range(3)]
    assert pr[0] == pytest.approx(np.average(each, weights=share))
    assert set(within) >= {"roc_auc", "pr_auc"}


def test_regression_scores_equal_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    target, guess = generator.normal(size=30), generator.normal(size=30)
    weight = generator.integers(0, 3, size=30)
    rows = np.repeat(np.arange(30), weight)
    found = regression_scores(target, guess, weight[None].astype(float))
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {
            "mae": sk.mean_absolute_error(target[rows], guess[rows]),
            "rmse": sk.root_mean_squared_error(target[rows], guess[rows]),
            "r2": sk.r2_score(target[rows], guess[rows]),
        }
    )


def test_weights_are_the_draws_of_whole_subjects() -> None:
    subjects = np.repeat(["a", "b", "c"], [1, 2, 3])
    weights = subject_weights(subjects, draws=20, seed=3)
    assert (weights[0] == 1).all()
    drawn = subject_draws(subjects, draws=20, seed=3)
    np.testing.assert_array_equal(weights[7], np.bincount(drawn[6], minlength=6))
    assert (weights[:, 1] == weights[:, 2]).all()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_fitting_in_the_span_of_few_scans_changes_no_probe(kind: Prediction) -> None:
    """A penalised layer on 30 features of 12 scans, fitted on 12 numbers or on all 30."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(12, 30)) * generator.uniform(0.1, 9, 30)
    truth = (np.arange(12) % 2).astype(float)
    probe = fit_linear(x, truth, np.arange(12), kind, folds=2, seed=0, strength=0.7)
    z = StandardScaler().fit_transform(x)
    layer = (
        LogisticRegression(C=0.7, class_weight="balanced", tol=1e-8, max_iter=5000)
        if kind == "classification"
        else Ridge(alpha=0.7)
    )
    layer.fit(z, truth)
    np.testing.assert_allclose(probe.coef, np.ravel(layer.coef_), atol=2e-4)


def test_other_heads_find_signal_and_are_judged_alike(results: ProbeResults) -> None:
    for head in ("y_sem_knn", "y_sem_mlp"):
        assert results.metrics["diagnosis"][head]["roc_auc"].value > 0.75
        assert results.cv_metrics["age_years"][head]["mae"].subjects == 18
    assert results.targets["diagnosis"].cv.repeats == 2


def test_signal_is_rare_among_permuted_labels(results: ProbeResults) -> None:
    for protocol in ("test", "cv"):
        assert results.targets["diagnosis"].sizes(protocol).permutation.p == pytest.approx(1 / 21)
    features, table = cohort()
    noise = {"y_sem": features["noise"]}
    params = QUICK.model_copy(update={"permutations": 20})
    p = fit_probes(noise, table, params).targets["diagnosis"].cv.permutation.p
    assert p > 0.1


def test_a_label_that_the_split_gives_away_is_named() -> None:
    features, table = cohort(12)
    label = np.where(table.split == "test", "AD", "CN")
    results = fit_probes(features, table.assign(diagnosis=label), QUICK)
    assert "the split gives the label away" in results.skipped["diagnosis"]
    assert "test: AD" in results.skipped["diagnosis"]


def test_scans_without_a_label_are_counted() -> None:
    features, table = cohort()
    table = table.assign(diagnosis=table.diagnosis.where(table.index % 6 > 1, "MCI"))
    table.loc[:3, "diagnosis"] = np.nan
    remark = fit_probes(features, table, QUICK).remarks["diagnosis"]
    assert remark.startswith("diagnosis: 26 of 72 scans carry no CN or AD (22 MCI, 4 empty)")


def test_no_head_sees_the_test_subjects() -> None:
    """As for the linear probe: neighbours, perceptron and an encoder trained on labels."""
    features, table = cohort(18)
    params = QUICK.model_copy(update={"heads": ("knn", "mlp"), "supervised_steps": 3})
    config = {"in_channels": 1, "grid": (4, 4, 4), "channels": (4, 8), "dim": 6, "num_heads": 2}
    z_0 = np.random.default_rng(0).normal(size=(36, 64)).astype(np.float32)
    heads = {"supervised": SupervisedHead(config, torch.device("cpu"))}
    sets = {"y_sem": features["y_sem"], "supervised": z_0}
    results = fit_probes(sets, table, params, heads=heads)
    test = (table.split == "test").to_numpy()
    shuffled = table.copy()
    for column in ("diagnosis", "age_years"):
        shuffled.loc[test, column] = np.roll(shuffled.loc[test, column].to_numpy(), 3)
    moved = {name: values + np.float32(9) * test[:, None] for name, values in sets.items()}
    assert_same_fit(results, fit_probes(moved, shuffled, params, heads=heads))


def test_random_encoder_is_standardised_over_training_scans() -> None:
    config = {"in_channels": 1, "grid": (4, 6, 4), "channels": (4, 8), "dim": 6, "num_heads": 2}
    z_0 = np.random.default_rng(0).normal(size=(40, 96)).astype(np.float32)
    train = np.arange(40) < 30
    codes = random_encoder_codes(config, z_0, train, seed=0)
    np.testing.assert_allclose(codes[train].mean(axis=0), 0, atol=1e-3)
    again = random_encoder_codes(config, z_0, train, seed=0)
    np.testing.assert_allclose(codes, again, rtol=1e-4, atol=1e-4)
    assert not np.allclose(codes, random_encoder_codes(config, z_0, train, seed=1))


def test_small_fits_take_one_blas_thread_and_large_ones_what_there_is():
    def threads() -> set[int]:
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with many_fits(LARGE - 1):
            assert threads() == {1}
        with many_fits(LARGE):
            assert threads() == {2}
        assert threads() == {2}
