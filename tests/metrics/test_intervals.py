"""What figures of few, perfect and dependent subjects may claim."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.metrics.auc_intervals import auc_difference, auc_interval, auc_limits, rank
from pipeline.metrics.intervals import mean_interval, median_interval, share_interval, subject_means
from pipeline.metrics.prediction_scores import classification_scores
from pipeline.metrics.reconstruction import lowest
from pipeline.probes.probe_intervals import probe_estimates
from schemas.metrics import FEWEST_SUBJECTS, Estimate


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


def test_subject_means_are_means_of_scans() -> None:
    means = subject_means([[1.0, 3, 10]], ["a", "a", "b"])
    np.testing.assert_array_equal(means, [[2, 10]])


def test_no_limit_of_an_error_is_below_zero() -> None:
    errors = [0.0, 0.1, 0.1, 0.2, 9.0, 0.1]
    people = [f"p{i}" for i in range(len(errors))]
    free, bound = mean_interval(errors, people), mean_interval(errors, people, least=0)
    assert free.low is not None
    assert free.low < 0
    assert bound.low == 0
    assert (bound.value, bound.high) == (free.value, free.high)
    assert [lowest(name) for name in ("mse_brain", "ventricle_error_ml")] == [0, 0]
    assert lowest("ssim_brain") == -np.inf


def test_a_mean_of_shares_stays_between_zero_and_one() -> None:
    ranks = share_interval([1.0, 1.0, 1.0, 0.02, 1.0, 0.05], list("abcdef"))
    assert ranks.low is not None
    assert ranks.high is not None
    assert 0 <= ranks.low < ranks.value < ranks.high <= 1
