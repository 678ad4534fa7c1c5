"""Whose scan it is, from its id alone, and how a few scans stand for many subjects."""

from collections.abc import Sequence

import pandas as pd


def subjects_of(scan_ids: Sequence[str]) -> list[str]:
    """Return the subject of each scan: the `sub-…` its id begins with.

    Ids of other kinds, from the column of a table, say nothing; each is taken for a subject.
    """
    return [s.split("_")[0] if s.startswith("sub-") else s for s in scan_ids]


def many_subjects_first(subjects: Sequence[str]) -> list[int]:
    """Return the order of scans: the first of every subject, then the second ones, and so on."""
    visit = pd.Series(subjects, dtype=str).groupby(list(subjects)).cumcount()
    order: list[int] = visit.argsort(kind="stable").tolist()
    return order
