"""qc_overrides.csv: verdicts by hand, which go before the thresholds of QC."""

import difflib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.labels.scan_records import read_table
from pipeline.runtime.files import write_atomic
from schemas.errors import ContractError
from schemas.manifest import OVERRIDE_COLUMNS, OVERRIDE_STATUSES

BY_HAND = "set by hand"
"""Start of the reasons of a scan whose status was set by hand."""


@dataclass(frozen=True, slots=True)
class Override:
    """A verdict by hand."""

    status: str
    """pass, warn or fail."""
    reason: str
    """Why, in words."""


def read_overrides(path: Path) -> dict[str, Override]:
    """Return scan_id → override; {} if there is no file.

    Further columns (who, when) are ignored.

    Raises
    ------
    ContractError
        If a column or cell is missing, a status is unknown, or a scan is named twice.
    """
    if not path.is_file():
        return {}
    table = read_table(path)
    missing = [name for name in OVERRIDE_COLUMNS if name not in table]
    if missing:
        raise ContractError(
            f"{path}: no column {', '.join(missing)}; the first line must be "
            f"{','.join(OVERRIDE_COLUMNS)}"
        )
    overrides: dict[str, Override] = {}
    for number, cells in enumerate(table[list(OVERRIDE_COLUMNS)].itertuples(index=False), start=2):
        scan_id, status, reason = (c.strip() if isinstance(c, str) else "" for c in cells)
        where = f"{path}: row {number}"
        if not scan_id:
            raise ContractError(f"{where} has no scan_id")
        if scan_id in overrides:
            raise ContractError(f"{where}: {scan_id} stands there twice; keep one row")
        overrides[scan_id] = checked_override(status, reason, where=f"{where}: {scan_id}")
    return overrides


def checked_override(status: str, reason: str, *, where: str) -> Override:
    """Return an override whose status is known and whose reason is given.

    Raises
    ------
    ContractError
        With `where` as its beginning.
    """
    if status not in OVERRIDE_STATUSES:
        expected = ", ".join(OVERRIDE_STATUSES)
        raise ContractError(f"{where}: status is {status!r}, expected one of {expected}")
    if not reason:
        raise ContractError(f"{where}: no reason given; say in a word why it is set to {status}")
    return Override(status, reason)


def check_known(scan_ids: Collection[str], known: Collection[str], *, where: str) -> None:
    """Refuse unknown scan ids.

    Raises
    ------
    ContractError
        With `where` as its beginning and the nearest known id.
    """
    for scan_id in sorted(set(scan_ids) - set(known)):
        near = difflib.get_close_matches(scan_id, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "ids are those of manifest.csv"
        raise ContractError(f"{where}: no scan {scan_id}; {hint}")


def write_overrides(path: Path, overrides: Mapping[str, Override]) -> None:
    """Write the overrides in order of scan_id, keeping further columns of the rows that stay."""
    before = read_table(path) if path.is_file() else pd.DataFrame(columns=list(OVERRIDE_COLUMNS))
    rows = pd.DataFrame(
        [
            (scan_id, verdict.status, verdict.reason)
            for scan_id, verdict in sorted(overrides.items())
        ],
        columns=list(OVERRIDE_COLUMNS),
    )
    extra = [name for name in before if name not in OVERRIDE_COLUMNS]
    if extra:
        rows = rows.merge(before[["scan_id", *extra]], on="scan_id", how="left")
    text = io.StringIO()
    rows.to_csv(text, index=False, lineterminator="\n")
    write_atomic(path, text.getvalue())
