"""Folds of subjects for cross-fitting: a subject is whole in its fold, strata spread evenly."""

from collections.abc import Mapping

from pipeline.cohort.split import split_subjects
from pipeline.runtime.digests import seed_from
from schemas.manifest import Split
from schemas.params import SplitParams

VAL_SHARE = 0.1
"""Share of a fold's training subjects that early stop is judged on."""


def fold_subjects(strata: Mapping[str, str], folds: int, *, seed: int) -> dict[str, int]:
    """Return the fold of each subject, 0 to folds − 1.

    Within each stratum (a label such as the diagnosis, or "") subjects are ranked by a hash of
    seed and id and dealt to the folds in turn; the next stratum goes on where the last one ended.
    So folds are of one size to one subject, in every stratum too, and the order of rows does not
    matter. Adding subjects can move others.
    """
    ranked = sorted(
        (stratum, seed_from("fold", seed, name), name) for name, stratum in strata.items()
    )
    return {name: place % folds for place, (_, _, name) in enumerate(ranked)}


def splits_without(
    fold: int, fold_of: Mapping[str, int], strata: Mapping[str, str], *, seed: int
) -> dict[str, Split]:
    """Return train and val among the subjects of the other folds, and test for those of `fold`."""
    others = {name: strata[name] for name, own in fold_of.items() if own != fold}
    shares = SplitParams(train=1 - VAL_SHARE, val=VAL_SHARE, seed=seed)
    splits = split_subjects(others, shares)
    return {name: splits.get(name, "test") for name in fold_of}
