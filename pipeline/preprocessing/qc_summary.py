"""Summary of the QC table: counts, reasons, and the scans to look at."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from pipeline.imaging.qc import ADDED_LATER, NUMBERS
from pipeline.labels.scan_records import read_table
from pipeline.preprocessing.qc_overrides import BY_HAND, Override
from pipeline.runtime.progress import few
from schemas.errors import ContractError
from schemas.params import QcParams

STATUSES = ("pass", "warn", "fail", "error")
LOW_IS_BAD = ("ncc", "dice", "coverage", "snr")
"""Numbers whose lowest values are the worst."""
HIGH_IS_BAD = ("turned",)
"""Numbers whose highest values are the worst; of the others, those farthest from the median."""
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def read_qc(path: Path) -> pd.DataFrame:
    """Return a QC table, indexed by scan_id, with its numbers as floats.

    Raises
    ------
    ContractError
        If it is missing or is no QC table.
    """
    if not path.is_file():
        raise ContractError(f"{path}: no such QC table; `pipeline preprocess` writes it")
    table = read_table(path)
    expected = {"scan_id", "status", "reasons", *NUMBERS} - set(ADDED_LATER)
    missing = sorted(expected - set(table))
    if missing:
        raise ContractError(
            f"{path}: no column {', '.join(missing)}; expected the table that "
            "`pipeline preprocess --qc` writes"
        )
    for name in ADDED_LATER:
        table[name] = table.get(name)
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table["reasons"] = table["reasons"].fillna("")
    return table.set_index("scan_id")


def worst(table: pd.DataFrame, name: str, count: int) -> "pd.Series[float]":
    """Return the `count` worst values of one QC number that are worse than its median."""
    values = table[name].dropna().astype(float)
    off = values - values.median()
    goodness = off if name in LOW_IS_BAD else -off if name in HIGH_IS_BAD else -off.abs()
    goodness = goodness[goodness < 0]
    return values[goodness.sort_values(kind="stable").index[:count]]


def reason_counts(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return reason (without its numbers) → scans that have it, commonest first."""
    scans: dict[str, list[str]] = {}
    for scan_id, row in table.iterrows():
        # An error of reading a file is one reason, with its remedy after the semicolon.
        parts = [row["reasons"]] if row["status"] == "error" else row["reasons"].split("; ")
        for reason in filter(None, parts):
            scans.setdefault(NUMBER.sub("…", reason), []).append(str(scan_id))
    return dict(sorted(scans.items(), key=lambda item: (-len(item[1]), item[0])))


def summary_lines(
    table: pd.DataFrame, overrides: Mapping[str, Override], limits: QcParams, *, count: int
) -> Iterator[str]:
    """Yield the summary: counts, reasons, worst scans by each number, verdicts by hand."""
    counts = table["status"].value_counts()
    named = ", ".join(f"{counts.get(name, 0)} {name}" for name in STATUSES)
    yield f"{len(table)} scans: {named}"
    reasons = reason_counts(table)
    if reasons:
        yield ""
        yield "reasons (scans)"
        for reason, scans in reasons.items():
            yield f"  {len(scans):5d}  {reason}  ({few(scans, 3)})"
    yield ""
    shown = min(count, len(table))
    yield f"worst {shown} by each number (limits: preprocess.qc of params.yaml)"
    for name in NUMBERS:
        values = worst(table, name, count)
        listed = ", ".join(f"{scan_id} {value:.4g}" for scan_id, value in values.items())
        about = f"median {table[name].median():.4g}{_limits(name, limits)}"
        yield f"  {name:<10} {listed or 'none stands out'}  ({about})"
    if overrides:
        yield ""
        yield "set by hand"
        for scan_id, override in overrides.items():
            yield f"  {scan_id}: {override.status} ({override.reason}){_pending(table, scan_id)}"


def _limits(name: str, limits: QcParams) -> str:
    """Return in words where a number is suspicious; "" if it has no limit."""
    limit = getattr(limits, f"{name}_warn", None)
    if limit is None:
        return ""
    if isinstance(limit, tuple):
        return f", doubted outside {limit[0]:g} to {limit[1]:g}"
    return f", doubted {'above' if name in HIGH_IS_BAD else 'below'} {limit:g}"


def _pending(table: pd.DataFrame, scan_id: str) -> str:
    status = table["status"].get(scan_id)
    if status is None:
        return ", not in this table"
    if status == "error":
        return ", but it has no volume"
    by_hand = table["reasons"][scan_id].startswith(BY_HAND)
    return "" if by_hand else ", not applied yet: run `pipeline preprocess` or `dvc repro`"
