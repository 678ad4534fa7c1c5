"""Tables of scans (CSV, TSV, Parquet) with one row a scan."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.labels.columns import role_columns
from pipeline.labels.names import BidsLabels, find_column, whole_numbers
from pipeline.labels.personal_columns import names_a_person
from pipeline.labels.scan_records import ScanRecord, labels_of, read_table
from pipeline.labels.sidecars import decoded, read_sidecar
from pipeline.labels.visits import SESSION_NAMES
from pipeline.runtime.progress import few
from schemas.errors import ContractError

log = logging.getLogger(__name__)

PATH_NAMES = ("path", "file", "filename", "image", "image_path", "nifti", "T1w")

SUBJECT_NAMES = (
    "subject_id", "participant_id", "subject", "participant", "PTID", "RID", "eid", "sub",
    "sub_id", "ID",
)  # fmt: skip
"""Usual names of the column of subjects, the first that a table has; `ID` may be of anything."""


def table_records(path: Path, columns: Mapping[str, str]) -> list[ScanRecord]:
    """Return the rows of a table as records; paths are relative to the table's folder.

    The columns of path, subject, session and scan are found by usual names, or named in `columns`.
    Without a column of visits, those of a person with several rows are named by their months. A
    JSON file beside the table, `people.json` of `people.tsv`, gives units and codes as in BIDS.

    Raises
    ------
    ContractError
        If there is no column of paths or of subjects, or names of two people become the same label.
    """
    table = read_table(path)
    blank = [str(name) for name in table if table[name].isna().all()]
    if blank:
        log.info("%s: no entry in %s; as if the column were not there", path, ", ".join(blank))
    have = [str(name) for name in table.columns]
    path_column = _column(path, have, "path", PATH_NAMES, columns)
    subject_column = _column(path, have, "subject_id", SUBJECT_NAMES, columns)
    if names_a_person(subject_column):
        log.warning(
            "%s: scans will be called by the column %s, which may name a person; give pseudonyms",
            path,
            subject_column,
        )
    filled = [name for name in have if name not in blank]
    session_column = _find(path, have, "session_id", SESSION_NAMES, columns, among=filled)
    scan_column = _find(path, have, "scan_id", ("scan_id",), columns)
    used = tuple(c for c in (path_column, subject_column, session_column, scan_column) if c)
    table = decoded(table, read_sidecar(path.with_suffix(".json")), columns, path)
    for column in (subject_column, session_column, scan_column):
        if column is not None:
            table[column] = pd.Series(whole_numbers(table[column]), table.index, dtype=object)
    label = BidsLabels(path)
    records = []
    for number, row in table.iterrows():
        name, visit = row[subject_column], row[session_column] if session_column else None
        subject = label("sub", name) if isinstance(name, str) else ""
        owner = subject or f"row-{int(str(number)) + 2}"
        visit = _text(visit)
        session = label("ses", visit, within=owner)
        scan_id = _text(row[scan_column]) if scan_column else ""
        scan_id = scan_id or "_".join(filter(None, (owner, session)))
        name = _text(row[path_column])
        file = path.parent / name if name else Path()
        labels = labels_of(row, drop=used)
        records.append(ScanRecord(scan_id, subject, session, file, labels, visit=visit))
    if session_column is None and scan_column is None:
        _name_by_months(records, role_columns(have, columns).get("months_from_first"), path)
    return records


def _text(cell: object) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _name_by_months(records: list[ScanRecord], column: str | None, path: Path) -> None:
    """Name the visits of people with several rows by whole months, if all are different."""
    people: dict[str, list[ScanRecord]] = defaultdict(list)
    for record in records:
        people[record.subject_id].append(record)
    named = []
    for subject, visits in people.items():
        months = [str(cell) for cell in whole_numbers(r.labels.get(str(column)) for r in visits)]
        if not subject or len(visits) < 2 or len(set(months)) < len(months):
            continue
        if all(month.strip().isdigit() for month in months):
            for record, month in zip(visits, months, strict=True):
                record.session_id = f"ses-M{month.strip()}"
                record.scan_id = f"{subject}_{record.session_id}"
            named.append(subject)
    if named:
        log.info("%s: visits are named by %s for %s", path, column, few(named))


def _find(
    path: Path,
    have: list[str],
    target: str,
    names: tuple[str, ...],
    columns: Mapping[str, str],
    *,
    among: list[str] | None = None,
) -> str | None:
    """Return the column for a target: the one in `columns`, else one of the usual names."""
    if target in columns and columns[target] not in have:
        raise ContractError(
            f"{path}: no column {columns[target]!r}, wanted for {target} (has {', '.join(have)})"
        )
    taken = [name for key, name in columns.items() if key != target]
    free = [name for name in among or have if name not in taken]
    return columns[target] if target in columns else find_column(free, names)


def _column(
    path: Path, have: list[str], target: str, names: tuple[str, ...], columns: Mapping[str, str]
) -> str:
    column = _find(path, have, target, names, columns)
    if column is None:
        raise ContractError(
            f"{path}: no column for {target} (has {', '.join(have)}); name it with --set"
            f" cohort.columns.{target}=NAME"
        )
    return column
