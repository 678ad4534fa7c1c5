"""What figures of few, perfect and dependent subjects may claim."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pipeline.metrics.auc_intervals import auc_difference, auc_interval, auc_limits, rank
from pipeline.metrics.calibration import calibration_line
from pipeline.metrics.intervals import mean_interval, median_interval, share_interval, subject_means
from pipeline.metrics.prediction_scores import classification_scores
from pipeline.metrics.verdicts import chance_doubt, comparison
from pipeline.probes.linear import fit_chance, fit_linear
from pipeline.probes.multiplicity import adjust, holm
from pipeline.probes.pca_rivals import matched_components, spectrum, unwhitened
from pipeline.probes.permutation_test import arrangements, permuted
from pipeline.probes.probe_intervals import probe_differences, probe_estimates
from pipeline.probes.rivals import read_rivals
from schemas.evaluation import ProbeParams
from schemas.metrics import FEWEST_SUBJECTS, Estimate
from schemas.results import TargetResult


def of_classes(positives: int, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    return truth, np.arange(len(truth)).astype(str)


@pytest.mark.parametrize(("count", "limit"), [(5, 0.478), (10, 0.692), (20, 0.832)])
def test_a_perfect_auc_has_the_exact_interval(count: int, limit: float) -> None:
    truth, subjects = of_classes(count, count)
    perfect = auc_interval(truth, truth[None], subjects)
    assert perfect.interval_method == "exact"
    assert perfect.interval == pytest.approx((limit, 1), abs=5e-4)
    reversed_ = auc_interval(truth, -truth[None], subjects)
    assert reversed_.interval == pytest.approx((0, 1 - limit), abs=5e-4)


def test_the_exact_interval_rests_on_the_smaller_class() -> None:
    truth, subjects = of_classes(30, 6)
    assert auc_interval(truth, truth[None], subjects).low == pytest.approx(0.025 ** (1 / 6))


def test_an_auc_of_eight_subjects_is_not_printed() -> None:
    truth, subjects = of_classes(4, 4)
    for score in (truth, -truth):
        figure = auc_interval(truth, score[None], subjects)
        assert figure.interval is None
        assert str(figure) == "too few subjects"


def test_the_auc_is_that_of_scikit_learn_with_subjects_weights() -> None:
    generator = np.random.default_rng(0)
    whose = np.repeat(np.arange(12), generator.integers(1, 4, 12))
    positive = whose % 2 == 0
    score = generator.normal(size=len(whose)).round(1)
    weight = 1 / np.bincount(whose)[whose]
    expected = roc_auc_score(positive, score, sample_weight=weight)
    assert float(rank(positive, score, whose).auc) == pytest.approx(expected)
    fold = whose % 3
    known = classification_scores(positive.astype(float), score, weight[None], fold)["roc_auc"]
    assert float(rank(positive, score, whose, fold).auc) == pytest.approx(known[0])


def test_repeated_scans_make_no_interval_narrower() -> None:
    generator = np.random.default_rng(1)
    truth, subjects = of_classes(10, 10)
    score = generator.normal(size=20) + truth
    once = auc_interval(truth, score[None], subjects)
    thrice = auc_interval(*(np.repeat(truth, 3), np.repeat(score, 3)[None]), np.repeat(subjects, 3))
    assert thrice.interval == pytest.approx(once.interval)


def test_one_subject_with_many_visits_weighs_as_much_as_any() -> None:
    values, subjects = [0.0] * 9 + [10.0], ["a"] * 9 + ["b"]
    assert mean_interval(values, subjects).value == 5
    truth = np.array([1.0] * 9 + [1, 1, 1, 1, 1] + [0] * 6)
    whose = np.array(["a"] * 9 + [f"p{i}" for i in range(5)] + [f"n{i}" for i in range(6)])
    score = np.array([-1.0] * 9 + [1] * 5 + [0] * 6)
    assert float(rank(truth == 1, score, whose).auc) == pytest.approx(5 / 6)
    found = probe_estimates(truth, {"y_sem": score[None]}, whose, "classification")["y_sem"]
    assert found["roc_auc"].value == pytest.approx(5 / 6)
    assert found["sensitivity"].value == pytest.approx(5 / 6)


def test_shares_of_all_and_of_none_have_exact_intervals() -> None:
    subjects = np.arange(10)
    assert share_interval(np.ones(10), subjects).interval == pytest.approx((0.692, 1), abs=5e-4)
    assert share_interval(np.zeros(10), subjects).interval == pytest.approx((0, 0.308), abs=5e-4)
    some = share_interval(np.arange(10) < 7, subjects).interval
    assert some == pytest.approx((0.397, 0.892), abs=5e-4), "Wilson, as in every textbook"


def test_medians_have_order_statistics_from_six_subjects_on() -> None:
    assert median_interval(np.arange(5.0), np.arange(5)).interval is None
    assert median_interval(np.arange(6.0), np.arange(6)).interval == (0, 5)
    assert median_interval(np.arange(20.0), np.arange(20)).interval == (5, 14)


@pytest.mark.parametrize("count", [1, FEWEST_SUBJECTS - 1])
def test_few_subjects_have_no_interval_of_a_mean(count: int) -> None:
    assert mean_interval(np.arange(count), np.arange(count)).interval is None


def test_figures_that_do_not_vary_have_no_interval() -> None:
    assert mean_interval(np.ones(30), np.arange(30)).interval is None
    old = Estimate(value=1, low=1, high=1, subjects=30)
    assert old.interval is None, "a bootstrap of no width, in a file of an earlier version"


def test_limits_of_many_cohorts_are_those_of_each() -> None:
    generator = np.random.default_rng(2)
    positive, subjects = np.arange(16) < 8, np.arange(16)
    scores = generator.normal(size=(5, 16))
    low, high = auc_limits(rank(positive, scores, subjects))
    for row, score in enumerate(scores):
        one = auc_limits(rank(positive, score, subjects))
        assert (low[row], high[row]) == pytest.approx((float(one[0]), float(one[1])))


def test_differences_of_auc_are_paired() -> None:
    generator = np.random.default_rng(3)
    truth, subjects = of_classes(30, 30)
    score = generator.normal(size=60) + truth
    other = score + 0.05 * generator.normal(size=60)
    paired = auc_difference(truth, score[None], other[None], subjects)
    alone = auc_interval(truth, score[None], subjects)
    assert paired.interval is not None
    assert alone.interval is not None
    assert np.ptp(paired.interval) < 0.3 * np.ptp(alone.interval)
    assert auc_difference(truth, score[None], score[None], subjects).interval is None


def test_rivals_are_compared_on_the_same_scans() -> None:
    generator = np.random.default_rng(4)
    truth, subjects = generator.normal(size=40), np.arange(40).astype(str)
    noise = generator.normal(size=40)
    scores = {"y_sem": (truth + 0.5 * noise)[None], "rival": (truth + noise)[None]}
    found = probe_differences(truth, scores, subjects, "regression", first="y_sem")
    assert found["rival"]["mae"].excludes(0)
    assert found["rival"]["mae"].value == pytest.approx(-0.5 * np.abs(noise).mean())


def test_cross_validated_figures_have_wider_intervals() -> None:
    generator = np.random.default_rng(5)
    truth, subjects = of_classes(20, 20)
    score = (generator.normal(size=40) + 0.8 * truth)[None]
    fold = (np.arange(40) % 5)[None]
    fixed = probe_estimates(truth, {"y_sem": score}, subjects, "classification")["y_sem"]
    refitted = probe_estimates(truth, {"y_sem": score}, subjects, "classification", fold=fold)
    for metric in ("roc_auc", "accuracy", "brier"):
        one, other = fixed[metric].interval, refitted["y_sem"][metric].interval
        assert one is not None
        assert other is not None
        assert np.ptp(other) > np.ptp(one)
    assert refitted["y_sem"]["pr_auc"].interval is None
    assert fixed["pr_auc"].interval_method == "bootstrap"


def about(p: float | None, count: int = 20, kind: str = "classification") -> dict[str, Any]:
    size = {"scans": count, "subjects": count}
    judged: dict[str, Any] = {"judged_on": {"all": size, "CN": size, "AD": size}}
    if p is not None:
        judged["permutation"] = {"p": p, "permutations": 100}
    return {"kind": kind, "negative": "CN", "positive": "AD", "test": judged}


AUC = {"value": 0.8, "low": 0.6, "high": 0.9, "subjects": 40, "interval_method": "score"}


@pytest.mark.parametrize(
    ("figure", "p", "count", "doubt"),
    [
        (AUC, 0.01, 20, None),
        (AUC, 0.18, 20, "permuted labels do as well (p 0.18)"),
        (AUC | {"low": 0.45}, 0.01, 20, "the interval holds chance"),
        (AUC | {"value": 0.1, "low": 0.05, "high": 0.3}, 0.01, 20, "the interval holds chance"),
        (AUC | {"low": None, "high": None}, 0.01, 20, "no interval"),
        (AUC, None, 20, "not tested on permuted labels"),
        (AUC, 0.01, 5, "only 5 CN subjects judged"),
    ],
)
def test_interval_and_permutations_decide_together(figure, p, count, doubt):
    assert chance_doubt({"roc_auc": figure}, about(p, count), "test") == doubt


def test_an_error_beats_chance_by_what_it_is_less_than_that_of_the_median() -> None:
    gain = {"value": 1.0, "low": 0.2, "high": 1.8, "subjects": 30, "interval_method": "hall"}
    figures = {"mae": gain | {"value": 4.0}, "mae_gain": gain}
    regression = about(0.01, kind="regression")
    del regression["negative"], regression["positive"]
    assert chance_doubt(figures, regression, "test") is None
    figures["mae_gain"] = gain | {"low": -0.1}
    assert chance_doubt(figures, regression, "test") == "the interval holds chance"


def test_a_method_is_nearer_only_where_the_interval_leaves_out_zero() -> None:
    error = {"value": -1.0, "low": -2.0, "high": -0.5, "subjects": 9, "interval_method": "hall"}
    assert comparison(error, more_is_better=False) == "better"
    assert comparison(error, more_is_better=True) == "worse"
    assert comparison(error | {"high": 0.1}, more_is_better=False) == "no clear difference"
    assert comparison(error | {"subjects": 4}, more_is_better=False) == "too few subjects to tell"
    assert comparison(error | {"low": -1, "high": -1}, more_is_better=False) == (
        "no clear difference"
    )


def test_chance_for_an_error_is_the_median() -> None:
    truth = np.array([1.0, 1, 1, 2, 2, 90])
    guess = fit_chance(truth, "regression", np.arange(6).astype(str)).score(np.empty((6, 0)))
    assert guess[0] == np.median(truth)
    errors = [np.abs(truth - constant).mean() for constant in (guess[0], truth.mean(), 1.4, 5)]
    assert errors[0] == min(errors)
    # One subject's ten visits are one person.
    truth = np.array([9.0] * 10 + [1, 2, 3, 4])
    subjects = np.array(["a"] * 10 + list("bcde"))
    assert fit_chance(truth, "regression", subjects).intercept == 3


def test_permuted_ages_stay_a_series_of_visits() -> None:
    generator = np.random.default_rng(0)
    visits = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3])
    subjects = np.repeat([f"s{i}" for i in range(9)], visits)
    start = np.repeat(generator.uniform(60, 80, 9), visits)
    age = start + np.concatenate([np.arange(n) for n in visits])
    series = {tuple(age[subjects == name]) for name in np.unique(subjects)}
    moved = False
    for _ in range(20):
        shuffled = permuted(age, subjects, generator)
        found = {tuple(shuffled[subjects == name]) for name in np.unique(subjects)}
        assert found == series, "every series is handed on whole, to as many visits"
        moved |= not np.array_equal(shuffled, age)
    assert moved


def test_permuted_converters_keep_their_conversion() -> None:
    generator = np.random.default_rng(1)
    subjects = np.repeat(list("abcdef"), 2)
    truth = np.array([0.0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1])
    for _ in range(20):
        shuffled = permuted(truth, subjects, generator).reshape(6, 2)
        assert sorted(map(tuple, shuffled)) == sorted(map(tuple, truth.reshape(6, 2)))


def test_constant_labels_may_go_to_subjects_with_other_visits() -> None:
    generator = np.random.default_rng(2)
    subjects = np.repeat(["a", "b", "c"], [3, 2, 1])
    truth = (subjects == "a").astype(float)
    seen = {tuple(permuted(truth, subjects, generator)) for _ in range(60)}
    assert seen == {(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 0, 0, 1)}


def test_too_few_arrangements_are_counted() -> None:
    labels: Any = np.array([1.0, 0, 0, 0])
    assert arrangements(labels, np.array(list("abcd"))) == 4
    ages = np.array([60.0, 61, 70, 65, 66, 67])
    alone = np.array(["a", "a", "b", "c", "c", "c"])
    assert arrangements(ages, alone) == 1
    assert arrangements(np.arange(30.0), np.arange(30).astype(str)) > 1e9


def test_subject_means_are_means_of_scans() -> None:
    means = subject_means([[1.0, 3, 10]], ["a", "a", "b"])
    np.testing.assert_array_equal(means, [[2, 10]])


def test_other_targets_are_held_together_by_holm() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    targets = {
        name: TargetResult.model_validate(
            {"kind": "regression", "test": {"permutation": {"p": p, "permutations": 99}}}
        )
        for name, p in (("diagnosis", 0.04), ("sex", 0.04), ("age_years", 0.03))
    }
    adjust(targets, ProbeParams())
    tests = {name: target.model_dump()["test"]["permutation"] for name, target in targets.items()}
    assert "p_holm" not in tests["diagnosis"]
    assert targets["diagnosis"].primary is True
    assert tests["sex"]["p_holm"] == pytest.approx(0.06)
    secondary = about(0.04)
    secondary["test"]["permutation"]["p_holm"] = 0.06
    assert chance_doubt({"roc_auc": AUC}, secondary, "test") == (
        "permuted labels do as well (Holm’s p 0.06)"
    )


def test_calibration_slope_tells_overconfidence() -> None:
    generator = np.random.default_rng(6)
    odds = generator.normal(size=4000)
    truth = (generator.random(4000) < expit(odds)).astype(float)
    right = calibration_line(truth, expit(odds), np.ones(4000))
    assert right["calibration_slope"] == pytest.approx(1, abs=0.12)
    assert right["calibration_intercept"] == pytest.approx(0, abs=0.1)
    bold = calibration_line(truth, expit(2 * odds + 1), np.ones(4000))
    assert bold["calibration_slope"] == pytest.approx(0.5, abs=0.06)
    assert bold["calibration_intercept"] < -0.5
    apart = calibration_line(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.ones(4))
    assert np.isnan(apart["calibration_slope"]), "no slope is steep enough"


SCANS = pd.DataFrame(
    {"scan_id": [f"s{i}" for i in range(10)], "split": ["train"] * 8 + ["test"] * 2}
)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.drop(columns="scan_id"), "left out, it has no column scan_id"),
        (lambda t: t[["scan_id"]], "left out, it has no column of numbers"),
        (lambda t: t.head(7), "left out, 3 of 10 scans have no or no whole row, first s7"),
        (lambda t: t.head(9), "1 of 10 scans have no or no whole row, first s9; the training"),
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
