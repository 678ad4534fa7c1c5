"""Label tables of a dataset (participants.tsv, sessions.tsv), joined to scans by name."""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.labels.columns import role_columns
from pipeline.labels.names import (
    BidsLabels,
    find_column,
    match_names,
    plain,
    whole_numbers,
    without_zeros,
)
from pipeline.labels.scan_records import ScanRecord, labels_of, prefixed, read_table
from pipeline.labels.sidecars import decoded, read_sidecar
from pipeline.labels.visits import SESSION_NAMES, months_of_visit
from pipeline.runtime.progress import few
from schemas.errors import ContractError

log = logging.getLogger(__name__)

Cells = dict[str, Any]
Rows = dict[str, dict[str, Cells]]
"""Subject → session ("" for all of them) → labels."""

PARTICIPANTS = "participants.tsv"
SUBJECT_NAMES = (
    "participant_id", "participant", "subject_id", "subject", "PTID", "RID",
    "eid", "sub", "sub_id", "id",
)  # fmt: skip
COUNTED = re.compile(r"(?:ses|session|v|visit|t|tp|timepoint|scan|wave)?(\d+)")
"""Numbered sessions: `01`, `session1`, `V1`."""


@dataclass
class JoinIssues:
    """Names that did not match, or not exactly, when a label table was joined to scans."""

    renamed: list[str] = field(default_factory=list)
    """Names that were taken as one though written differently."""
    doubtful: list[str] = field(default_factory=list)
    """Names that match several others."""
    scans: list[str] = field(default_factory=list)
    """Scans without a row."""
    rows: list[str] = field(default_factory=list)
    """Rows without a scan."""

    def warn(self, where: str) -> None:
        """Log a warning for each kind of issue."""
        if self.renamed:
            log.warning(
                "%s: names differ (zeros, case, or the way to name a visit), taken as one: %s",
                where, few(self.renamed),
            )  # fmt: skip
        if self.doubtful:
            log.warning(
                "%s: several fit one another, none is taken: %s; write them alike",
                where, few(sorted(set(self.doubtful))),
            )  # fmt: skip
        if self.scans or self.rows:
            log.warning(
                "%s: scans without a row: %s; rows without a scan: %s",
                where, few(self.scans) or "none", few(self.rows) or "none",
            )  # fmt: skip


def read_participants(root: Path, columns: Mapping[str, str]) -> Rows:
    """Return the labels of participants.tsv; {} where there is none, as beside a table of scans.

    Raises
    ------
    ContractError
        If it has no column of people, or rows for one person and visit that differ.
    """
    path = root / PARTICIPANTS
    if not path.is_file():
        return {}
    table = read_table(path)
    people = find_column(table.columns, SUBJECT_NAMES)
    if people is None:
        raise ContractError(f"{path}: no column participant_id (has {', '.join(table.columns)})")
    table = decoded(table, read_sidecar(path.with_suffix(".json")), columns, path)
    return _rows(path, table.dropna(subset=[people]), people, columns)


def read_sessions(root: Path, columns: Mapping[str, str]) -> Rows:
    """Return the labels of every `sub-*/sub-*_sessions.tsv`; a bad one is skipped with a warning.

    Raises
    ------
    ContractError
        If rows for one person and visit differ.
    """
    rows: Rows = {}
    faults = []
    for path in sorted(root.glob("sub-*/sub-*_sessions.tsv")):
        subject = prefixed("sub", path.parent.name)
        try:
            table = read_table(path)
        except ContractError as error:
            faults.append(str(error))
            continue
        if _session_column(path, table, {}) is None:
            faults.append(f"{path}: no column session_id (has {', '.join(table.columns)})")
            continue
        sidecar = read_sidecar(root / "sessions.json", path.with_suffix(".json"))
        table = decoded(table, sidecar, columns, path)
        others = [c for c in table if plain(str(c)) in {"participantid", "subjectid"}]
        table = table.drop(columns=others).assign(**{"": subject})
        rows |= _rows(path, table, "", {})
    if faults:
        log.warning("labels of these tables are not read: %s", few(faults))
    return rows


def _session_column(path: Path, table: pd.DataFrame, columns: Mapping[str, str]) -> str | None:
    """Return the column of visits: the one in cohort.columns, else one of the usual names."""
    if "session_id" in columns:
        if columns["session_id"] not in table:
            raise ContractError(
                f"{path}: no column {columns['session_id']!r}, wanted for session_id"
                f" (has {', '.join(map(str, table.columns))})"
            )
        return columns["session_id"]
    filled = [str(name) for name in table if table[name].notna().any()]
    return find_column(filled, SESSION_NAMES)


def _rows(path: Path, table: pd.DataFrame, people: str, columns: Mapping[str, str]) -> Rows:
    """Return the labels of a table by person and visit; rows that agree count once."""
    table = table.reset_index(drop=True)
    names = [str(cell) for cell in whole_numbers(table[people])]
    bids_label = BidsLabels(path)
    subjects = [bids_label("sub", name) for name in names]
    column = _session_column(path, table, columns)
    visits = _visits(table, column, subjects, columns)
    rows: Rows = defaultdict(dict)
    differing: dict[str, list[str]] = {}
    for (_, row), subject, visit in zip(table.iterrows(), subjects, visits, strict=True):
        session = bids_label("ses", visit, within=subject)
        labels = labels_of(row, drop=(people, *([column] if column else [])))
        before = rows[subject].setdefault(session, labels)
        other = [k for k in before if k in labels and not _same_value(before[k], labels[k])]
        if other:
            differing.setdefault(f"{subject} {session}".strip(), []).extend(map(str, other))
        rows[subject][session] = labels | before
    if differing:
        named = [f"{key} ({', '.join(dict.fromkeys(names))})" for key, names in differing.items()]
        remedy = (
            "keep one row a visit"
            if column
            else "name the column that tells visits apart: --set cohort.columns.session=NAME"
        )
        raise ContractError(f"{path}: rows differ for one person: {few(named)}; {remedy}")
    return dict(rows)


def _visits(
    table: pd.DataFrame, column: str | None, subjects: list[str], columns: Mapping[str, str]
) -> list[str]:
    """Return the visit of every row ("" for none), by its months if no column names visits."""
    if column is None:
        months = role_columns([str(c) for c in table], columns).get("months_from_first")
        if months is None or len(set(subjects)) == len(subjects):
            return [""] * len(table)
        cells = whole_numbers(table[months])
        return [f"M{cell}" if isinstance(cell, str) and cell.isdigit() else "" for cell in cells]
    return [cell if isinstance(cell, str) else "" for cell in whole_numbers(table[column])]


def _same_value(one: object, other: object) -> bool:
    """Return whether two cells are equal apart from blanks and case; `70` equals `70.0`."""
    first, second = (" ".join(str(cell).split()).casefold() for cell in (one, other))
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


def folder_names(root: Path) -> set[str]:
    """Return the subjects that have a folder, also below derivatives/."""
    patterns = ("sub-*", "derivatives/*/sub-*") if root.is_dir() else ()
    folders = [folder for pattern in patterns for folder in root.glob(pattern)]
    return {prefixed("sub", path.name) for path in folders if path.is_dir()}


def rows_by_folder(rows: Rows, subjects: Collection[str]) -> tuple[Rows, JoinIssues]:
    """Return the rows under the subjects' names as folders spell them, and names that differ."""
    issues = JoinIssues()
    matched, issues.doubtful = match_names(sorted(subjects), sorted(rows), [without_zeros])
    subject_of = {row: subject for subject, row in matched.items()}
    issues.renamed = [f"{row} as {subject}" for subject, row in matched.items() if subject != row]
    return {subject_of.get(name, name): visits for name, visits in rows.items()}, issues


def label_records(
    root: Path, records: Iterable[ScanRecord], people: Rows, columns: Mapping[str, str]
) -> None:
    """Add to records the labels of `people` and of sessions.tsv, by subject and visit.

    Labels that a record already has stay. The log names scans without a row, rows without a scan,
    and names that match by number alone.
    """
    everyone = list(records)
    sessions_of: dict[str, set[str]] = defaultdict(set)
    for record in everyone:
        sessions_of[record.subject_id].add(record.session_id)
    present = {name: sorted(sessions_of[name]) for name in sorted(sessions_of)}
    rows, issues = rows_by_folder(people, present.keys() | folder_names(root))
    visits = read_sessions(root, columns)
    issues.rows = [name for name in rows if name not in present]
    issues.scans = [name for name in present if people and name not in rows]
    visit_issues = JoinIssues()
    labels: dict[tuple[str, str], Cells] = {}
    for name, sessions in present.items():
        person_rows = rows.get(name, {})
        by_row = _by_session(name, person_rows, sessions, issues)
        by_visit = _by_session(name, visits.get(name, {}), sessions, visit_issues)
        for session in sessions:
            parts = (person_rows.get("", {}), by_row.get(session, {}), by_visit.get(session, {}))
            labels[name, session] = parts[0] | parts[1] | parts[2]
    issues.warn(str(root / PARTICIPANTS))
    visit_issues.warn(f"{root}: sessions.tsv")
    for record in everyone:
        record.labels = labels[record.subject_id, record.session_id] | record.labels


def _by_session(
    subject: str, rows: Mapping[str, Cells], have: list[str], issues: JoinIssues
) -> Rows:
    """Return session → labels for the sessions `have` of one person; add to `issues`."""
    offered = [name for name in rows if name]
    if not offered:
        return {}
    wanted = [name for name in have if name]
    matched, doubtful = match_names(wanted, offered, [without_zeros, _months])
    left = [name for name in wanted if name not in matched and name not in doubtful]
    rest = [name for name in offered if name not in matched.values() and name not in doubtful]
    counted, _ = match_names(left, rest, [_counted])
    if len(counted) == len(left):
        # A scan left over would mean that the two count from different visits.
        matched |= counted
    issues.doubtful += [f"{subject} {name}" for name in doubtful]
    issues.renamed += [f"{subject} {old} as {new}" for new, old in matched.items() if new != old]
    labels = {new: rows[old] for new, old in matched.items()}
    unnamed = "" in have
    if unnamed:
        labels[""] = _common([rows[name] for name in offered])
    if unnamed and len(offered) > 1:
        issues.scans.append(f"{subject} (no session in its name; takes what its rows agree on)")
    issues.scans += [
        f"{subject} {name}" for name in wanted if name not in matched and "" not in rows
    ]
    missing = [name for name in offered if name not in matched.values() and not unnamed]
    issues.rows += [f"{subject} {name}" for name in missing]
    return labels


def _months(session: str) -> float | None:
    months = months_of_visit(session)
    return None if months is None else round(months, 2)


def _counted(session: str) -> int | None:
    match = COUNTED.fullmatch(session.removeprefix("ses-").lower())
    return int(match[1]) if match else None


def _common(rows: list[Cells]) -> Cells:
    """Return the labels on which all rows agree."""
    first, *others = rows
    return {k: v for k, v in first.items() if all(k in o and _same_value(o[k], v) for o in others)}
