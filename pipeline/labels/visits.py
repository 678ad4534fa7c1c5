"""Months of visits: from visit codes, and of every scan since the person's first."""

import logging
import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from pipeline.labels.names import plain
from pipeline.runtime.progress import few

log = logging.getLogger(__name__)

SESSION_NAMES = (
    "session_id", "session", "visit", "VISCODE", "VISCODE2", "ses", "ses_id", "visit_id",
    "visit_code", "visit_name", "timepoint", "timepoint_id", "tp", "wave", "event_name",
    "redcap_event_name",
)  # fmt: skip
"""Usual names of the column of visits; the first that a table has is taken."""
BASELINE = {"bl", "base", "baseline", "sc", "scr", "screen", "screening", "init", "initial"}
FILLERS = re.compile(r"visit|session|scan|mri|timepoint|followup|fu(?=\d)")
"""Words around the time in names of visits: `scmri`, `visit_m12`, `followup-12m`."""
ZERO = re.compile(r"(?:v|t|tp|ses)?0+")
UNITS = {"y": 12.0, "m": 1.0, "w": 7 / 30.4375, "d": 1 / 30.4375}
"""Months of one unit."""
_WORDS = r"(y|yrs?|years?|m|mo|mon|mths?|months?|wks?|weeks?|d|days?)"
_NUMBER = r"(\d+(?:\.\d+)?)"
UNIT_FIRST = re.compile(_WORDS + _NUMBER)
UNIT_LAST = re.compile(_NUMBER + _WORDS)
DATE = re.compile(r"((?:19|20)\d{6})(?:t?\d{4}(?:\d{2})?)?")


def months_of_visit(name: str) -> float | None:
    """Return the months in a visit's name, or None: `bl` 0, `m06` 6, `y1` 12, `d0129` 4.2.

    Numbers alone, `v1` and `wave2` count visits and hold no time; `v00` and `0` are the first.
    """
    text = re.sub(r"[^a-z0-9.]", "", name.strip().lower().removeprefix("ses-"))
    text = FILLERS.sub("", text)
    if text in BASELINE or ZERO.fullmatch(text):
        return 0.0
    first, last = UNIT_FIRST.fullmatch(text), UNIT_LAST.fullmatch(text)
    if first:
        return float(first[2]) * UNITS[first[1][0]]
    if last:
        return float(last[1]) * UNITS[last[2][0]]
    return None


def months_from_first(
    table: pd.DataFrame, visits: Sequence[str], names: Sequence[str], where: str
) -> "pd.Series[float]":
    """Return months since each subject's first scan; unknown ones are missing, with a warning.

    Months are taken as given; else from the names of all visits of the person; else from the ages
    at the scans, if all are given; else 0 for a single scan. Different visits that would come out
    at one month are left without one, unless the month was given.

    Parameters
    ----------
    table
        Columns scan_id, subject_id, session_id, age_years, months_from_first, and labels.
    visits
        Names of the visits as the source writes them, one a row.
    names
        Names of the rows in warnings.
    where
        Name of the table in warnings.
    """
    given = table["months_from_first"].astype(float)
    people = table["subject_id"]
    by_name = _distinct(_from_names(table, visits), table)
    ages = table["age_years"].astype(float) * 12
    grouped = ages.groupby(people)
    usable = (grouped.transform("nunique") > 1) & ~ages.isna().groupby(people).transform("any")
    from_age = (ages - grouped.transform("min")).where(usable)
    several = people.groupby(people).transform("size") > 1
    derived = by_name.fillna(from_age).where(given.isna())
    months = _distinct(given.fillna(derived).round(2), table, keep=given.notna())
    months = months.fillna((~several).map({True: 0.0, False: float("nan")}))
    _warn(months, given, table, pd.Series(list(names), index=table.index), where)
    return months


def _from_names(table: pd.DataFrame, visits: Sequence[str]) -> "pd.Series[float]":
    """Return months from the visits' names, or from another column that names visits."""
    session_names = pd.Series(list(visits), index=table.index, dtype=object)
    usual = {plain(name) for name in SESSION_NAMES}
    others = [c for c in table if plain(str(c)) in usual and c != "session_id"]
    columns = [session_names, *(table[c].fillna("").astype(str) for c in others)]
    months = pd.Series(float("nan"), index=table.index)
    for rows in table.groupby("subject_id", sort=False).groups.values():
        by_column = [_months_of_person(list(column.loc[rows])) for column in columns]
        complete = [values for values in by_column if not np.isnan(values).any()]
        partial = [values for values in by_column if not np.isnan(values).all()]
        months.loc[rows] = (complete or partial or by_column)[0]
    return months


def _months_of_person(visits: list[str]) -> np.ndarray:
    """Return months since the first of one person's visits, NaN where a name holds no time."""
    dates = [_date(name) for name in visits]
    known = [date for date in dates if date is not None]
    if len(known) == len(visits):
        return np.array([(date - min(known)).days / 30.4375 for date in known])
    codes = [months_of_visit(name) for name in visits]
    months = np.array([np.nan if code is None else code for code in codes])
    unknown = np.isnan(months)
    # A visit without a time may be the first, unless another is called the baseline.
    if unknown.all() or (unknown.any() and np.nanmin(months) > 0):
        return np.full(len(visits), np.nan)
    first: np.ndarray = months - np.nanmin(months)
    return first


def _date(name: str) -> datetime | None:
    match = DATE.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("ses-")))
    try:
        # A day is all that is wanted: no time zone plays a part.
        return datetime.strptime(match[1], "%Y%m%d") if match else None
    except ValueError:
        return None


def _distinct(
    months: "pd.Series[float]", table: pd.DataFrame, keep: "pd.Series[bool] | None" = None
) -> "pd.Series[float]":
    """Return months, without those that different visits of a person share (NaN)."""
    shared = _shared(months, table)
    return months.mask(shared if keep is None else shared & ~keep)


def _shared(months: "pd.Series[float]", table: pd.DataFrame) -> "pd.Series[bool]":
    sessions = table["session_id"].fillna("").astype(str)
    visits = sessions.where(sessions != "", table["scan_id"])
    count = visits.groupby([table["subject_id"], months.round(2)]).transform("nunique")
    shared: pd.Series[bool] = (count > 1).fillna(value=False) & months.notna()
    return shared


def _warn(
    months: "pd.Series[float]",
    given: "pd.Series[float]",
    table: pd.DataFrame,
    shown: "pd.Series[str]",
    where: str,
) -> None:
    missing = shown[months.isna()]
    if len(missing):
        log.warning(
            "%s: months_from_first stays empty for %d scans, whose visits and ages tell no time of"
            " their own: %s; give a column months",
            where,
            len(missing),
            few(list(missing)),
        )
    same = shown[_shared(months, table) & given.notna()]
    if len(same):
        log.warning(
            "%s: months_from_first: different visits of a person at one month, as given: %s",
            where,
            few(list(same)),
        )
