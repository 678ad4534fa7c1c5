"""Visits that lie between two others of the same person."""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, slots=True)
class MiddleVisit:
    """A visit between two others of its subject."""

    subject_id: str
    before: str
    scan_id: str
    after: str
    alpha: float
    """Where it lies between the two in time, 0 to 1."""
    gap_months: float
    """Months between the two."""


def middle_visits(manifest: pd.DataFrame, scan_ids: Collection[str]) -> list[MiddleVisit]:
    """Return every visit of `scan_ids` that has the same subject's visits on both sides.

    Its neighbours are the nearest of another month. Scans without a month are left out.
    """
    known = manifest[manifest["scan_id"].isin(scan_ids) & manifest["months_from_first"].notna()]
    visits_between = []
    for subject, visits in known.groupby("subject_id"):
        ordered = visits.sort_values(["months_from_first", "scan_id"])
        ordered = ordered.drop_duplicates("months_from_first")
        ids, months = ordered["scan_id"].tolist(), ordered["months_from_first"].tolist()
        for i in range(1, len(ids) - 1):
            gap = months[i + 1] - months[i - 1]
            alpha = (months[i] - months[i - 1]) / gap
            visits_between.append(
                MiddleVisit(str(subject), ids[i - 1], ids[i], ids[i + 1], alpha, gap)
            )
    return visits_between
