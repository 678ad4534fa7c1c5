"""Folds of training scans, for what must be judged on subjects that took no part in a fit."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.cohort.subjects import subjects_of

FOLDS = 5


def subject_folds(scan_ids: Sequence[str]) -> Tensor:
    """Return the fold of each scan, 0 to at most 4; a subject is whole in its fold."""
    subjects = subjects_of(scan_ids)
    names = sorted(set(subjects))
    count = min(FOLDS, len(names))
    fold_of = {name: i * count // len(names) for i, name in enumerate(names)}
    return torch.tensor([fold_of[subject] for subject in subjects])
