"""Folds of the probes: subjects whole, classes on both sides, and no repeat like another."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.probes.linear import grouped_folds, repeated_folds


def test_folds_keep_subjects_whole_and_classes_on_both_sides() -> None:
    subjects = np.repeat(np.arange(11), 3)
    truth = (subjects % 3 == 0).astype(float)
    folds = list(grouped_folds(truth, subjects, "classification", folds=5, seed=0))
    assert len(folds) == 4
    held_out = np.concatenate([rows for _, rows in folds])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(33))
    for fit, judged in folds:
        assert not set(subjects[fit]) & set(subjects[judged])
        assert len(np.unique(truth[fit])) == 2


def partition(folds) -> set[frozenset[int]]:
    return {frozenset(rows.tolist()) for _, rows in folds}


@given(
    visits=st.lists(st.integers(1, 40), min_size=8, max_size=40),
    share=st.floats(0.2, 0.8),
    seed=st.integers(0, 2**40),
    kind=st.sampled_from(["classification", "regression"]),
    distinct=st.booleans(),
)
@settings(max_examples=30)
def test_repeated_folds_differ_whatever_the_numbers_of_visits(visits, share, seed, kind, distinct):
    """Where all subjects have different numbers of scans, StratifiedGroupKFold has one answer."""
    if distinct:
        visits = list(range(1, len(visits) + 1))
    generator = np.random.default_rng(seed)
    subjects = generator.permutation(np.repeat(np.arange(len(visits)), visits))
    # Three of each class: one person more or less is left of it where the converter has one scan.
    positive = generator.permutation(len(visits)) < max(
        3, min(len(visits) - 3, share * len(visits))
    )
    truth = positive[subjects].astype(float)
    mixed = (subjects == 0) & (np.arange(len(subjects)) % 2 == 0)  # a converter, perhaps
    truth[mixed] = 1 - truth[mixed]
    repeats = repeated_folds(truth, subjects, kind, folds=4, repeats=6, seed=seed)
    assert len(repeats) == 6
    parts = [partition(folds) for folds in repeats]
    assert all(a != b for a, b in combinations(parts, 2))
    for folds in repeats:
        held_out = np.concatenate([rows for _, rows in folds])
        np.testing.assert_array_equal(np.sort(held_out), np.arange(len(truth)))
        of_fold = [len(np.unique(subjects[rows])) for _, rows in folds]
        assert max(of_fold) - min(of_fold) <= 1
        for fit, judged in folds:
            assert not set(subjects[fit]) & set(subjects[judged])
            assert kind == "regression" or len(np.unique(truth[judged])) == 2


def test_a_classification_is_repeated_as_often_as_its_subjects_can_be_parted() -> None:
    subjects, truth = np.arange(4), np.array([0.0, 0.0, 1.0, 1.0])
    found = repeated_folds(truth, subjects, "classification", folds=2, repeats=9, seed=0)
    assert sorted(map(sorted, (map(sorted, partition(f)) for f in found))) == [
        [[0, 2], [1, 3]],
        [[0, 3], [1, 2]],
    ]
    none = repeated_folds(np.zeros(4), subjects, "classification", folds=2, repeats=9, seed=0)
    assert not any(none)
