"""Report section: who was excluded, by diagnosis, age and site."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.metrics.intervals import share_interval
from schemas.manifest import SITE_COLUMNS

NOT_GIVEN = "not given"
MOST_GROUPS = 12
"""More words than this are no groups to compare."""
AGE_THIRDS = 3


def exclusions(manifest: pd.DataFrame, quarantine: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return scans and excluded scans by diagnosis, age and site, or None where none is excluded.

    The share of excluded scans has an interval over subjects, from 5 of them on. Scans that were
    refused before they stood in the manifest, with labels, are counted as `unlabelled`.
    """
    if quarantine is None or quarantine.empty:
        return None
    excluded = manifest["scan_id"].isin(quarantine["scan_id"]).to_numpy()
    unlabelled = int((~quarantine["scan_id"].isin(manifest["scan_id"])).sum())
    if not excluded.any():
        return {"tables": [], "unlabelled": unlabelled}
    site = next((name for name in SITE_COLUMNS if name in manifest), None)
    groupings = {"Diagnosis": _words(manifest, "diagnosis"), "Age": _ages(manifest)}
    groupings |= {} if site is None else {site.capitalize(): _words(manifest, site)}
    tables = [
        {"by": name, "rows": _rows(manifest, groups, excluded)}
        for name, groups in groupings.items()
        if groups is not None and 1 < groups.nunique() <= MOST_GROUPS
    ]
    return {"tables": tables, "unlabelled": unlabelled}


def _rows(
    manifest: pd.DataFrame, groups: pd.Series, excluded: "np.ndarray[Any, np.dtype[np.bool_]]"
) -> list[dict[str, Any]]:
    rows = []
    for name in groups.cat.categories:
        inside = (groups == name).to_numpy()
        if not inside.any():
            continue
        subjects = manifest.loc[inside, "subject_id"].to_numpy(dtype=str)
        rows.append(
            {
                "name": str(name),
                "scans": int(inside.sum()),
                "subjects": len(np.unique(subjects)),
                "excluded": int(excluded[inside].sum()),
                "share": share_interval(excluded[inside].astype(float), subjects),
            }
        )
    return rows


def _words(manifest: pd.DataFrame, column: str) -> pd.Series | None:
    if column not in manifest or manifest[column].isna().all():
        return None
    words = manifest[column].astype(object).where(manifest[column].notna(), NOT_GIVEN).astype(str)
    return words.astype("category")


def _ages(manifest: pd.DataFrame) -> pd.Series | None:
    """Return a third of the ages for each scan, named by its whole years."""
    ages = pd.to_numeric(manifest.get("age_years", pd.Series(dtype=float)), errors="coerce")
    if ages.notna().sum() < AGE_THIRDS:
        return None
    low, high = (round(float(ages.quantile(share))) for share in (1 / 3, 2 / 3))
    if not ages.min() < low < high < ages.max():
        return None
    names = [f"below {low}", f"{low} to below {high}", f"{high} and above"]
    thirds = pd.cut(ages, [-np.inf, low, high, np.inf], right=False, labels=names)
    return thirds.cat.add_categories(NOT_GIVEN).fillna(NOT_GIVEN)
