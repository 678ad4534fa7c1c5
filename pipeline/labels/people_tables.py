"""Tables of labels beside a data set, participants.tsv and sessions.tsv: each row to its scans."""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.labels.columns import role_columns
from pipeline.labels.names import Labels, find_column, pairs, plain, whole_numbers, without_zeros
from pipeline.labels.scan_records import Record, labels_of, prefixed, read_table
from pipeline.labels.sidecars import decoded, read_sidecar
from pipeline.labels.visits import SESSION_NAMES, months_of_visit
from pipeline.runtime.progress import few
from schemas.errors import ContractError

log = logging.getLogger(__name__)

Cells = dict[str, Any]
Rows = dict[str, dict[str, Cells]]
"""Subject → session (or "", for all of them) → labels."""

PARTICIPANTS = "participants.tsv"
SUBJECT_NAMES = (
    "participant_id", "participant", "subject_id", "subject", "PTID", "RID",
    "eid", "sub", "sub_id", "id",
)  # fmt: skip
COUNTED = re.compile(r"(?:ses|session|v|visit|t|tp|timepoint|scan|wave)?(\d+)")
"""Sessions that are counted: `01`, `session1`, `V1`."""


@dataclass
class Joined:
    """What a table of labels and the scans made of each other."""

    renamed: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)
    """Scans without a row."""
    rows: list[str] = field(default_factory=list)
    """Rows without a scan."""

    def tell(self, where: str) -> None:
        """Warn of what does not fit, or fits by number alone."""
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
    """Return the labels of every `sub-*/sub-*_sessions.tsv`; a bad one is said and passed over.

    Raises
    ------
    ContractError
        If rows for one person and visit differ.
    """
    found: Rows = {}
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
        found |= _rows(path, table, "", {})
    if faults:
        log.warning("labels of these tables are not read: %s", few(faults))
    return found


def _session_column(path: Path, table: pd.DataFrame, columns: Mapping[str, str]) -> str | None:
    """Return the column that tells visits apart, the user's own or one of the usual names."""
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
    """Return the rows of a table by person and visit; rows that agree count once."""
    table = table.reset_index(drop=True)
    names = [str(cell) for cell in whole_numbers(table[people])]
    called = Labels(path)
    subjects = [called("sub", name) for name in names]
    column = _session_column(path, table, columns)
    visits = _visits(table, column, subjects, columns)
    found: Rows = defaultdict(dict)
    differing: dict[str, list[str]] = {}
    for (_, row), subject, visit in zip(table.iterrows(), subjects, visits, strict=True):
        session = called("ses", visit, within=subject)
        labels = labels_of(row, drop=(people, *([column] if column else [])))
        before = found[subject].setdefault(session, labels)
        other = [k for k in before if k in labels and not _alike(before[k], labels[k])]
        if other:
            differing.setdefault(f"{subject} {session}".strip(), []).extend(map(str, other))
        found[subject][session] = labels | before
    if differing:
        named = [f"{key} ({', '.join(dict.fromkeys(what))})" for key, what in differing.items()]
        remedy = (
            "keep one row a visit"
            if column
            else "name the column that tells visits apart: --set cohort.columns.session=NAME"
        )
        raise ContractError(f"{path}: rows differ for one person: {few(named)}; {remedy}")
    return dict(found)


def _visits(
    table: pd.DataFrame, column: str | None, subjects: list[str], columns: Mapping[str, str]
) -> list[str]:
    """Return the visit of every row, "" for none; by its months where no column names visits."""
    if column is None:
        months = role_columns([str(c) for c in table], columns).get("months_from_first")
        if months is None or len(set(subjects)) == len(subjects):
            return [""] * len(table)
        cells = whole_numbers(table[months])
        return [f"M{cell}" if isinstance(cell, str) and cell.isdigit() else "" for cell in cells]
    return [cell if isinstance(cell, str) else "" for cell in whole_numbers(table[column])]


def _alike(one: object, other: object) -> bool:
    """Tell whether two cells say the same: blanks and case aside, `70` is `70.0`."""
    first, second = (" ".join(str(cell).split()).casefold() for cell in (one, other))
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


def folder_names(root: Path) -> set[str]:
    """Return the subjects that folders are named after, those of derivatives included."""
    patterns = ("sub-*", "derivatives/*/sub-*") if root.is_dir() else ()
    folders = [folder for pattern in patterns for folder in root.glob(pattern)]
    return {prefixed("sub", path.name) for path in folders if path.is_dir()}


def by_folder(rows: Rows, subjects: Collection[str]) -> tuple[Rows, Joined]:
    """Return rows under the names of the subjects they belong to, however zeros are written."""
    joined = Joined()
    found, joined.doubtful = pairs(sorted(subjects), sorted(rows), [without_zeros])
    called = {theirs: mine for mine, theirs in found.items()}
    joined.renamed = [f"{theirs} as {mine}" for mine, theirs in found.items() if mine != theirs]
    return {called.get(name, name): visits for name, visits in rows.items()}, joined


def label_records(
    root: Path, records: Iterable[Record], people: Rows, columns: Mapping[str, str]
) -> None:
    """Give records the labels of `people` and of sessions.tsv, each by subject and visit.

    Labels that records have already stay. The log names scans without a row, rows without a scan,
    and names that fit by number alone.
    """
    everyone = list(records)
    sessions_of: dict[str, set[str]] = defaultdict(set)
    for record in everyone:
        sessions_of[record.subject_id].add(record.session_id)
    present = {name: sorted(sessions_of[name]) for name in sorted(sessions_of)}
    rows, told = by_folder(people, present.keys() | folder_names(root))
    visits = read_sessions(root, columns)
    told.rows = [name for name in rows if name not in present]
    told.scans = [name for name in present if people and name not in rows]
    told_visits = Joined()
    labels: dict[tuple[str, str], Cells] = {}
    for name, sessions in present.items():
        own = rows.get(name, {})
        by_row = _by_session(name, own, sessions, told)
        by_visit = _by_session(name, visits.get(name, {}), sessions, told_visits)
        for session in sessions:
            parts = (own.get("", {}), by_row.get(session, {}), by_visit.get(session, {}))
            labels[name, session] = parts[0] | parts[1] | parts[2]
    told.tell(str(root / PARTICIPANTS))
    told_visits.tell(f"{root}: sessions.tsv")
    for record in everyone:
        record.labels = labels[record.subject_id, record.session_id] | record.labels


def _by_session(subject: str, rows: Mapping[str, Cells], have: list[str], told: Joined) -> Rows:
    """Return session → labels for the sessions with scans of one person."""
    offered = [name for name in rows if name]
    if not offered:
        return {}
    wanted = [name for name in have if name]
    found, doubtful = pairs(wanted, offered, [without_zeros, _months])
    left = [name for name in wanted if name not in found and name not in doubtful]
    rest = [name for name in offered if name not in found.values() and name not in doubtful]
    counted, _ = pairs(left, rest, [_counted])
    if len(counted) == len(left):
        # A scan left over would mean that the two count from different visits.
        found |= counted
    told.doubtful += [f"{subject} {name}" for name in doubtful]
    told.renamed += [f"{subject} {old} as {new}" for new, old in found.items() if new != old]
    labels = {new: rows[old] for new, old in found.items()}
    unnamed = "" in have
    if unnamed:
        labels[""] = _common([rows[name] for name in offered])
    if unnamed and len(offered) > 1:
        told.scans.append(f"{subject} (no session in its name; takes what its rows agree on)")
    told.scans += [f"{subject} {name}" for name in wanted if name not in found and "" not in rows]
    missing = [name for name in offered if name not in found.values() and not unnamed]
    told.rows += [f"{subject} {name}" for name in missing]
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
    return {k: v for k, v in first.items() if all(k in o and _alike(o[k], v) for o in others)}
