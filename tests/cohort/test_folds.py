"""Folds of subjects for cross-fitting."""

from collections import Counter

from pipeline.cohort.folds import fold_subjects, splits_without

STRATA = {f"sub-{i:03d}": ("AD", "CN", "CN", "MCI")[i % 4] for i in range(33)}


def test_folds_are_of_one_size_in_every_stratum_and_ignore_order():
    folds = fold_subjects(STRATA, 5, seed=1)
    assert set(folds) == set(STRATA)
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for stratum in set(STRATA.values()):
        members = Counter(folds[name] for name, own in STRATA.items() if own == stratum)
        counts = [members[fold] for fold in range(5)]
        assert max(counts) - min(counts) <= 1, stratum
    assert fold_subjects(dict(reversed(STRATA.items())), 5, seed=1) == folds
    assert fold_subjects(STRATA, 5, seed=2) != folds


def test_a_fold_is_neither_in_train_nor_in_val_of_its_model():
    folds = fold_subjects(STRATA, 5, seed=1)
    for fold in range(5):
        splits = splits_without(fold, folds, STRATA, seed=1)
        assert set(splits) == set(STRATA)
        held_out = {name for name, own in folds.items() if own == fold}
        assert {name for name, split in splits.items() if split == "test"} == held_out
        counts = Counter(splits.values())
        assert counts["val"] == round(0.1 * (33 - len(held_out)))
