"""A CSV, TSV or Parquet table with one row a scan."""

import logging
from pathlib import Path

from pipeline.cohort.records import Record, labels_of, prefixed, read_table
from schemas.errors import ContractError

log = logging.getLogger(__name__)

PATH_NAMES = ("path", "file", "filename", "image", "image_path", "nifti", "T1w")
SUBJECT_NAMES = ("subject_id", "participant_id", "subject", "PTID", "RID")
SESSION_NAMES = ("session_id", "session", "visit", "VISCODE")


def table_records(path: Path, columns: dict[str, str]) -> list[Record]:
    """Return the rows of a table as records; paths are relative to the table's folder.

    The columns for path, subject, session and scan go by common names or by `columns`.

    Raises
    ------
    ContractError
        If there is no column with paths or with subjects.
    """
    table = read_table(path)
    blank = [str(name) for name in table if table[name].isna().all()]
    if blank:
        log.info("%s: no entry in %s; as if the column were not there", path, ", ".join(blank))
    path_column = _column(path, list(table.columns), "path", PATH_NAMES, columns)
    subject_column = _column(path, list(table.columns), "subject_id", SUBJECT_NAMES, columns)
    session_column = _find(path, list(table.columns), "session_id", SESSION_NAMES, columns)
    scan_column = _find(path, list(table.columns), "scan_id", ("scan_id",), columns)
    used = tuple(c for c in (path_column, subject_column, session_column, scan_column) if c)
    records = []
    for number, row in table.iterrows():
        name = row[subject_column]
        subject = prefixed("sub", name) if isinstance(name, str) else ""
        session = row[session_column] if session_column else None
        session = prefixed("ses", session) if isinstance(session, str) else ""
        scan_id = row[scan_column] if scan_column else None
        if not isinstance(scan_id, str):
            scan_id = "_".join(filter(None, (subject or f"row-{int(str(number)) + 2}", session)))
        name = row[path_column] if isinstance(row[path_column], str) else ""
        file = path.parent / name if name else Path()
        records.append(Record(scan_id, subject, session, file, labels_of(row, drop=used)))
    return records


def _find(
    path: Path, have: list[str], target: str, names: tuple[str, ...], columns: dict[str, str]
) -> str | None:
    if target in columns and columns[target] not in have:
        raise ContractError(
            f"{path}: no column {columns[target]!r}, wanted for {target} (has {', '.join(have)})"
        )
    candidates = (columns[target],) if target in columns else names
    return next((name for name in candidates if name in have), None)


def _column(
    path: Path, have: list[str], target: str, names: tuple[str, ...], columns: dict[str, str]
) -> str:
    found = _find(path, have, target, names, columns)
    if found is None:
        raise ContractError(
            f"{path}: no column for {target} (has {', '.join(have)}); name it with --set"
            f" cohort.columns.{target}=NAME"
        )
    return found
