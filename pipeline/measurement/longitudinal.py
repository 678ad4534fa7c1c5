"""How measures change within people over visits, and how close two scans of one time are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.measurement.mixed_model import fit_mixed_model
from pipeline.metrics.agreement import icc_agreement
from pipeline.metrics.intervals import mean_interval
from schemas.errors import ContractError, ParamsError
from schemas.metrics import FEWEST_SUBJECTS, Estimate
from schemas.results import ChangeResult, LongitudinalMetrics

RETEST_MONTHS = 3.0
"""Scans of a person so close in time should measure the same."""
LEAST_YEARS = 0.2
"""A shorter time between first and last visit gives no yearly change."""
EVERYBODY = "all"
CHANGE_COLUMNS = ("subject_id", "measure", "group", "visits", "years", "slope", "change")
"""Columns of changes.csv: a row a person and measure; slope and change a year."""
NOT_MEASURES = ("age", "low", "high")
"""Numbers of brain_age.csv that measure nothing of a scan."""


def read_measures(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the columns of numbers of a CSV, by its column scan_id; those of `columns` alone.

    Raises
    ------
    ContractError
        If it cannot be read, lacks a column, holds a scan twice, or no numbers.
    """
    try:
        table = pd.read_csv(path, dtype={"scan_id": str})
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable CSV table ({error!s:.100})") from error
    missing = [name for name in ("scan_id", *columns) if name not in table]
    if missing:
        raise ContractError(f"{path}: no column {', '.join(missing)}")
    twice = table["scan_id"][table["scan_id"].duplicated()]
    if len(twice):
        raise ContractError(f"{path}: {twice.iloc[0]} has two rows, expected one a scan")
    numbers = table.set_index("scan_id").select_dtypes("number")
    chosen = list(columns) or [str(name) for name in numbers if name not in NOT_MEASURES]
    if not chosen or not set(chosen) <= set(numbers):
        raise ContractError(f"{path}: expected columns of numbers beside scan_id")
    return numbers[chosen]


def judge_change(
    measures: pd.DataFrame,
    table: pd.DataFrame,
    *,
    by: str | None = None,
    random_slopes: bool = False,
) -> tuple[LongitudinalMetrics, pd.DataFrame]:
    """Return how each measure changes, and a row a person and measure (CHANGE_COLUMNS).

    Parameters
    ----------
    measures
        One column a measure, by scan_id.
    table
        Rows of the manifest.
    by
        Column that groups people, by their first visit.
    random_slopes
        Give every person a slope in the mixed model; refused where few have three visits.

    Raises
    ------
    ContractError
        If no measured scan is in the manifest, or there is no column `by`.
    """
    scans = _timed(measures, table, by)
    metrics = LongitudinalMetrics(by=by, retest_months=RETEST_MONTHS)
    untimed = int(scans["years"].isna().sum())
    if untimed:
        metrics.remarks.append(f"{untimed} scans have neither months nor age and take no part")
    scans = scans[scans["years"].notna()]
    changes = []
    for name in measures.columns:
        told = scans.assign(value=scans[name]).dropna(subset=["value"])
        rows = [_change(str(p), str(name), own) for p, own in told.groupby("subject_id")]
        of_people = pd.DataFrame([row for row in rows if row], columns=list(CHANGE_COLUMNS))
        retest = _retest(told, str(name), metrics)
        if of_people.empty:
            metrics.skipped[str(name)] = f"{name}: nobody has two visits {LEAST_YEARS} years apart"
            continue
        changes.append(of_people)
        result = ChangeResult(
            people=len(of_people),
            scans=int(of_people["visits"].sum()),
            years=float(of_people["years"].median()),
            slope=_by_group(of_people, "slope"),
            change=_by_group(of_people, "change"),
            retest=retest,
        )
        repeated = told[told["subject_id"].isin(of_people["subject_id"])]
        try:
            result.model = fit_mixed_model(repeated, random_slopes=random_slopes)
        except (ContractError, ParamsError) as error:
            metrics.skipped[f"{name}/model"] = f"{name}: {error}"
        metrics.measures[str(name)] = result
    empty = pd.DataFrame(columns=list(CHANGE_COLUMNS))
    return metrics, pd.concat(changes, ignore_index=True) if changes else empty


def _timed(measures: pd.DataFrame, table: pd.DataFrame, by: str | None) -> pd.DataFrame:
    """Return measured scans with subject_id, years since the person's first scan, and group."""
    known = table[table["scan_id"].astype(str).isin(measures.index)].reset_index(drop=True)
    if known.empty:
        raise ContractError("measures: no scan of the manifest is among them; compare scan_id")
    if by is not None and by not in known:
        raise ContractError(f"--by {by}: no such column in the manifest")
    empty = pd.Series(np.nan, index=known.index)
    months = pd.to_numeric(known.get("months_from_first", empty), errors="coerce")
    age = pd.to_numeric(known.get("age_years", empty), errors="coerce")
    person = known["subject_id"].astype(str)
    years = (months / 12).fillna(age - age.groupby(person).transform("min"))
    scans = pd.DataFrame({"subject_id": person, "years": years})
    scans = scans.sort_values(["subject_id", "years"], kind="stable")
    group = known[by] if by is not None else pd.Series(EVERYBODY, index=known.index)
    first = group.reindex(scans.index).groupby(scans["subject_id"]).transform("first")
    scans["group"] = first.fillna("unknown").astype(str)
    scan_ids = known["scan_id"].reindex(scans.index)
    return scans.join(measures.loc[scan_ids].set_index(scans.index))


def _change(person: str, measure: str, own: pd.DataFrame) -> dict[str, object] | None:
    """Return the slope and yearly change of one person, None without time between visits."""
    years, value = own["years"].to_numpy(float), own["value"].to_numpy(float)
    if np.ptp(years) < LEAST_YEARS:
        return None
    first, last = value[years == years.min()].mean(), value[years == years.max()].mean()
    return {
        "subject_id": person,
        "measure": measure,
        "group": own["group"].iloc[0],
        "visits": len(own),
        "years": float(np.ptp(years)),
        "slope": float(np.polyfit(years, value, 1)[0]),
        "change": float((last - first) / np.ptp(years)),
    }


def _by_group(of_people: pd.DataFrame, column: str) -> dict[str, Estimate]:
    found = {EVERYBODY: mean_interval(of_people[column], of_people["subject_id"])}
    for name, group in of_people.groupby("group"):
        if name != EVERYBODY and len(group) >= FEWEST_SUBJECTS:
            found[str(name)] = mean_interval(group[column], group["subject_id"])
    return found


def _retest(told: pd.DataFrame, name: str, metrics: LongitudinalMetrics) -> Estimate | None:
    """Return ICC(A,1) of the first two scans of each person that are close in time."""
    pairs = []
    for _, own in told.groupby("subject_id"):
        gaps = np.diff(own["years"].to_numpy(float)) * 12
        close = np.flatnonzero(gaps <= RETEST_MONTHS)
        if len(close):
            pairs.append(own["value"].to_numpy(float)[close[0] : close[0] + 2])
    if not pairs:
        return None
    try:
        return icc_agreement(np.array(pairs))
    except ValueError as error:
        metrics.skipped[f"{name}/retest"] = f"{name}, test and retest: {error}"
        return None
