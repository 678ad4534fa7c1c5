"""Scores of predictions against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.metrics.prediction_scores import classification_scores, rank_areas, regression_scores


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
            "r": np.corrcoef(target[rows], guess[rows])[0, 1],
        }
    )
