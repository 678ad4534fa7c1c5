"""Permuted labels: visits of a subject stay together."""

from typing import Any

import numpy as np

from pipeline.probes.permutation_test import arrangements, exchangeable, permuted


def test_permuted_ages_stay_a_series_of_visits() -> None:
    generator = np.random.default_rng(0)
    visits = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3])
    subjects = np.repeat([f"s{i}" for i in range(9)], visits)
    start = np.repeat(generator.uniform(60, 80, 9), visits)
    age = start + np.concatenate([np.arange(n) for n in visits])
    series = {tuple(age[subjects == name]) for name in np.unique(subjects)}
    moved = False
    for _ in range(20):
        shuffled = permuted(age, exchangeable(age, subjects), generator)
        found = {tuple(shuffled[subjects == name]) for name in np.unique(subjects)}
        assert found == series, "every series is handed on whole, to as many visits"
        moved |= not np.array_equal(shuffled, age)
    assert moved


def test_permuted_converters_keep_their_conversion() -> None:
    generator = np.random.default_rng(1)
    subjects = np.repeat(list("abcdef"), 2)
    truth = np.array([0.0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1])
    for _ in range(20):
        shuffled = permuted(truth, exchangeable(truth, subjects), generator).reshape(6, 2)
        assert sorted(map(tuple, shuffled)) == sorted(map(tuple, truth.reshape(6, 2)))


def test_constant_labels_may_go_to_subjects_with_other_visits() -> None:
    generator = np.random.default_rng(2)
    subjects = np.repeat(["a", "b", "c"], [3, 2, 1])
    truth = (subjects == "a").astype(float)
    seen = {tuple(permuted(truth, exchangeable(truth, subjects), generator)) for _ in range(60)}
    assert seen == {(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 0, 0, 1)}


def test_too_few_arrangements_are_counted() -> None:
    labels: Any = np.array([1.0, 0, 0, 0])
    assert arrangements(labels, np.array(list("abcd"))) == 4
    ages = np.array([60.0, 61, 70, 65, 66, 67])
    alone = np.array(["a", "a", "b", "c", "c", "c"])
    assert arrangements(ages, alone) == 1
    assert arrangements(np.arange(30.0), np.arange(30).astype(str)) > 1e9
