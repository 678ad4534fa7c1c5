"""Points between two visits at which to interpolate: interpolation weights, or months."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.applications.number_ranges import parse_numbers
from schemas.errors import ContractError, ParamsError

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_ALPHAS = "0:1:5"


@dataclass(frozen=True, slots=True)
class InterpolationPoints:
    """Interpolation weights between scans a and b, with their months where requested."""

    alphas: list[float]
    months: list[float] | None
    record: dict[str, Any]


def points_between(
    a: str,
    b: str,
    *,
    alpha: str | None,
    months: str | None,
    manifest: Path | None,
) -> InterpolationPoints:
    """Return the points that `--alpha` or `--months` ask for.

    Raises
    ------
    ParamsError
        If both or wrong numbers are given, or a place lies outside.
    ContractError
        If the manifest lacks a scan or its month, or the two are of different subjects.
    """
    if a == b:
        raise ParamsError(f"--a and --b are both {a}; expected two scans")
    if months is None:
        alphas = list(parse_numbers(alpha or DEFAULT_ALPHAS, option="--alpha"))
        check_alphas(alphas)
        return InterpolationPoints(alphas, None, {})
    if alpha is not None:
        raise ParamsError("--alpha and --months both given; use one")
    if manifest is None:
        raise ParamsError("--months: give the --manifest that holds the months of the two visits")
    from pipeline.cohort.manifest import read_manifest  # it brings pandas

    wanted = list(parse_numbers(months, option="--months"))
    visits = read_manifest(manifest).set_index("scan_id")
    month_a, month_b = (_month(visits, scan, manifest) for scan in (a, b))
    subjects = [str(visits.loc[scan, "subject_id"]) for scan in (a, b)]
    if subjects[0] != subjects[1]:
        raise ContractError(
            f"{manifest}: {a} is of {subjects[0]}, {b} of {subjects[1]}; --months needs two visits"
            " of one subject (--alpha does not)"
        )
    alphas = alphas_of_months(wanted, month_a, month_b)
    record = {"months_of_visits": [month_a, month_b], "subject_id": subjects[0]}
    return InterpolationPoints(alphas, wanted, record)


def check_alphas(alphas: Sequence[float]) -> None:
    """Refuse places beyond the two scans.

    Raises
    ------
    ParamsError
        Naming the first alpha outside [0, 1].
    """
    outside = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if outside:
        raise ParamsError(
            f"--alpha {outside[0]:g}: expected 0 (scan a) to 1 (scan b); `pipeline forecast` goes"
            " beyond the last visit"
        )


def alphas_of_months(months: Sequence[float], month_a: float, month_b: float) -> list[float]:
    """Return where months (since the first visit) lie between two visits.

    Raises
    ------
    ParamsError
        If both visits are of the same month, or a month is outside them.
    """
    if month_a == month_b:
        raise ParamsError(
            f"--months: both scans are of month {month_a:g}, so no time lies between them; use"
            " --alpha"
        )
    low, high = sorted((month_a, month_b))
    outside = [month for month in months if not low <= month <= high]
    if outside:
        raise ParamsError(
            f"--months {outside[0]:g}: expected {low:g} to {high:g}, the months of the two visits;"
            " `pipeline forecast` goes beyond the last visit"
        )
    return [(month - month_a) / (month_b - month_a) for month in months]


def _month(visits: "pd.DataFrame", scan_id: str, manifest: Path) -> float:
    if scan_id not in visits.index:
        raise ContractError(f"{manifest}: {scan_id} is not in it; --months needs both visits there")
    month = float(visits["months_from_first"].loc[scan_id])
    if math.isnan(month):
        raise ContractError(f"{manifest}: months_from_first of {scan_id} is empty; use --alpha")
    return month
