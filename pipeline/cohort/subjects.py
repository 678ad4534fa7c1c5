"""Subjects of scans: read from scan ids, and used to order scans."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def subjects_of(scan_ids: Sequence[str]) -> list[str]:
    """Return the subject of each scan: the `sub-…` its id begins with.

    Ids of other kinds, from the column of a table, name no subject; each counts as one.
    """
    return [s.split("_")[0] if s.startswith("sub-") else s for s in scan_ids]


def many_subjects_first(subjects: Sequence[str]) -> list[int]:
    """Return the order of scans: the first of every subject, then the second ones, and so on."""
    visit = pd.Series(subjects, dtype=str).groupby(list(subjects)).cumcount()
    order: list[int] = visit.argsort(kind="stable").tolist()
    return order


def scans_of_others(subjects: Sequence[str]) -> list[int]:
    """Return for each scan the place of one of another subject; [] if there is one subject only.

    It lies half the list away, or at the next place of another subject.
    """
    count = len(subjects)
    if len(set(subjects)) < 2:
        return []
    tries = [*range(count // 2, count), *range(1, count // 2)]
    return [
        next((i + n) % count for n in tries if subjects[(i + n) % count] != own)
        for i, own in enumerate(subjects)
    ]


def spread(table: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return at most `limit` rows, evenly spread."""
    if len(table) <= limit:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, limit).astype(int)]
