"""The tables of a BIDS derivative: participants.tsv, quality control, y_sem.

BIDS takes one row a participant in a table of `phenotype/`. So every kind of scan that a
participant may have (a session, a run) has a table of its own, named after it. Several calls may
write to one dataset: rows of other participants stay.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bids_export.dataset import write_json_once
from pipeline.bids_export.names import ScanNames
from pipeline.labels.names import find_column
from pipeline.labels.people_tables import PARTICIPANTS, SUBJECT_NAMES
from pipeline.labels.personal_columns import names_a_person
from pipeline.labels.scan_records import prefixed, read_table
from pipeline.labels.sidecars import read_sidecar
from pipeline.runtime.files import write_atomic
from schemas.errors import ContractError

ID = "participant_id"
MISSING = "n/a"
OLDEST = 89.0
"""BIDS: an age above it is written 89+."""
SEX = {"F": "female", "M": "male"}


def merge_table(path: Path, new: pd.DataFrame, keep: Callable[[str], bool]) -> None:
    """Write rows, one a participant, into a TSV; other rows stay where `keep` takes theirs.

    A participant's new row replaces the old one.
    """
    table = new.astype(object)
    if path.is_file():
        old = read_table(path)
        stays = old[~old[ID].isin(new[ID]) & old[ID].map(keep)]
        table = pd.concat([table, stays], ignore_index=True)
    table = table.sort_values(ID, kind="stable")
    text = io.StringIO()
    table.to_csv(text, sep="\t", index=False, na_rep=MISSING, lineterminator="\n")
    if not path.is_file() or path.read_text() != text.getvalue():
        write_atomic(path, text.getvalue())


def participants(manifest: pd.DataFrame, names: Mapping[str, ScanNames]) -> pd.DataFrame:
    """Return age, sex and diagnosis of the participants at their first scan, from a manifest."""
    table = manifest[manifest["scan_id"].isin(list(names))].copy()
    table[ID] = [names[scan].participant for scan in table["scan_id"]]
    first = table.sort_values(["months_from_first", "scan_id"], kind="stable")
    first = first.drop_duplicates(ID).rename(columns={"age_years": "age"})
    first["age"] = [_age(value) for value in first["age"]]
    return first[[ID, "age", "sex", "diagnosis"]].dropna(axis="columns", how="all")


def carried(source: Path, known: set[str], leave_out: list[str]) -> pd.DataFrame | None:
    """Return the rows of a BIDS dataset's participants.tsv for these participants, or None.

    Columns that may name a person stay behind, as do those of `leave_out`.
    """
    path = source / PARTICIPANTS
    if not path.is_file():
        return None
    table = read_table(path)
    people = find_column(table.columns, SUBJECT_NAMES)
    if people is None:
        return None
    table = table.dropna(subset=[people])
    ids = [prefixed("sub", str(name)) for name in table[people]]
    gone = [c for c in table if c == people or names_a_person(str(c)) or c in leave_out]
    table = table.drop(columns=gone)
    table.insert(0, ID, ids)
    table = table[table[ID].isin(known)].drop_duplicates(ID)
    if "age" in table:
        table["age"] = [_age(value) for value in table["age"]]
    lacking = sorted(known - set(table[ID]))
    return pd.concat([table, pd.DataFrame({ID: lacking})], ignore_index=True)


def _age(value: object) -> str | None:
    """Return an age as BIDS has it: 89+ above 89 years."""
    try:
        years = float(str(value))
    except ValueError:
        return None if value is None else str(value)
    if years != years:
        return None
    return "89+" if years > OLDEST else f"{years:g}"


def describe_participants(columns: list[str], source: Path | None) -> dict[str, Any]:
    """Return participants.json: what the source says of its columns, or what we know of ours."""
    ours: dict[str, Any] = {
        ID: {"Description": "unique participant label"},
        "age": {"Description": "age at the first scan", "Units": "year"},
        "sex": {"Description": "sex", "Levels": SEX},
        "diagnosis": {"Description": "diagnosis, as the source gives it"},
    }
    given = read_sidecar(source / "participants.json") if source is not None else {}
    other = {"Description": "column of the source dataset's participants.tsv"}
    return {name: given.get(name) or ours.get(name) or other for name in columns}


def write_phenotype(
    out: Path,
    kind: str,
    rows: Sequence[tuple[ScanNames, Mapping[str, object]]],
    *,
    tool: Mapping[str, Any],
    columns: Mapping[str, str],
    keep: Callable[[str], bool],
) -> None:
    """Write rows (scan, cells) into the tables of `phenotype/`, with a JSON each.

    Parameters
    ----------
    kind
        Start of the tables' names.
    tool
        What made the numbers: MeasurementToolMetadata.
    columns
        Column → what it holds.
    """
    tables: dict[str, list[dict[str, object]]] = {}
    for names, cells in rows:
        ending = names.stem.removeprefix(names.participant)
        row = {ID: names.participant, "session_id": names.session or None}
        tables.setdefault(f"{kind}{ending}", []).append(row | dict(cells))
    described = {name: {"Description": text} for name, text in columns.items()}
    for name, content in sorted(tables.items()):
        table = pd.DataFrame(content, columns=[ID, "session_id", *columns])
        session = {"session_id": {"Description": "session of the scan"}}
        if table["session_id"].isna().all():
            table, session = table.drop(columns="session_id"), {}
        path = out / "phenotype" / f"{name}.tsv"
        merge_table(path, table, keep)
        write_json_once(
            path.with_suffix(".json"),
            {"MeasurementToolMetadata": dict(tool)} | session | described,
        )


def check_same_tool(out: Path, kind: str, tool: Mapping[str, Any]) -> None:
    """Refuse to mix numbers of two models, or of two contrasts, in one table.

    Raises
    ------
    ContractError
        If a table of this kind was made by another model or of another contrast.
    """
    for path in sorted((out / "phenotype").glob(f"{kind}*.json")):
        try:
            before = json.loads(path.read_text()).get("MeasurementToolMetadata")
        except (OSError, ValueError, AttributeError):
            continue
        if before is not None and before != dict(tool):
            raise ContractError(
                f"{path}: of another model or contrast; remove the {kind}* there, or choose another"
                " folder"
            )
