"""Label columns of a table: which is the age, the sex and so on, and their cells parsed."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.labels.label_parsing import UNKNOWN, ages_of, classes_of, sexes_of
from pipeline.labels.scan_records import ScanRecord
from pipeline.labels.visits import log, months_from_first, months_of_visit
from pipeline.runtime.progress import few
from schemas.errors import ContractError

DEFAULT_NAMES = {
    "age_years": ("age_years", "age"),
    "sex": ("sex", "gender", "ptgender"),
    "diagnosis": ("diagnosis", "dx", "group"),
    "months_from_first": ("months_from_first", "months"),
    "split": ("split",),
}
"""Usual names of each label column, in any case; cohort.columns goes before them."""
ALIASES = {
    "age": "age_years",
    "gender": "sex",
    "dx": "diagnosis",
    "months": "months_from_first",
    "subject": "subject_id",
    "session": "session_id",
    "scan": "scan_id",
    "file": "path",
}
IDENTITY = ("path", "subject_id", "session_id", "scan_id")
"""Columns of a table of scans; other sources take these from the names of files."""
MOST_MONTHS = 1440
"""Months since the first scan above this (120 years), or below 0, are codes or errors."""
AGE_TEXT = "age_text"
"""Column with the text of ages that are no plain number: `89+`, `18-38`."""


def role_columns(have: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each label (age, sex and so on): target → column."""
    roles = {target: name for target, name in columns.items() if name in have}
    spelt = {name.lower(): name for name in reversed(have) if name not in roles.values()}
    for target, names in DEFAULT_NAMES.items():
        usual = next((spelt[name] for name in names if name in spelt), None)
        if target not in columns and usual is not None:
            roles[target] = usual
    return roles


def shown_path(path: Path, source: Path) -> str:
    """Return a path for warnings: relative to the input folder, or whole if outside."""
    root = source if source.is_dir() else source.parent
    below = os.path.relpath(path.absolute(), root.absolute()) if path != Path() else "no path"
    return str(path) if below.startswith("..") else below


def label_table(
    records: Sequence[ScanRecord], digests: Sequence[str], columns: Mapping[str, str], source: Path
) -> pd.DataFrame:
    """Return one row a record: ids, path, digest, and labels under their names in the manifest.

    Cells that cannot be read as an age or as months are missing, with a warning; odd ages are kept
    as text in `age_text`.

    Raises
    ------
    ContractError
        If a column that is asked for has no entry.
    """
    labels = pd.DataFrame([record.labels for record in records], dtype=object)
    have = [str(name) for name in labels]
    for target, wanted in columns.items():
        if target not in IDENTITY and wanted not in have:
            raise ContractError(
                f"{source}: no column {wanted!r} with entries, wanted for {target}"
                f" (there are {', '.join(have) or 'none'})"
            )
    roles = role_columns(have, {k: v for k, v in columns.items() if k not in IDENTITY})
    renamed = {target: labels[name] for target, name in roles.items()}
    rest = {c: labels[c] for c in have if c not in roles and c not in roles.values()}
    where, shown = str(source), [shown_path(record.path, source) for record in records]
    cells: dict[str, Sequence[object]] = {
        name: classes_of(column, name, where)
        for name, column in {**renamed, **rest}.items()
        if name not in {"age_years", "sex", "months_from_first"}
    }
    missing = [None] * len(records)
    ages, texts = ages_of(renamed.get("age_years", missing), shown, where)
    identity = {
        "scan_id": [r.scan_id for r in records],
        "subject_id": [r.subject_id for r in records],
        "session_id": [r.session_id for r in records],
        "path": [str(r.path.absolute()) for r in records],
        "source_digest": list(digests),
    }
    known_labels = {
        **{target: cells.pop(target, missing) for target in DEFAULT_NAMES},
        "age_years": ages,
        "sex": sexes_of(renamed.get("sex", missing), where),
        "months_from_first": _months(renamed.get("months_from_first", missing), shown, where),
    }
    extra = {name: column for name, column in cells.items() if name not in identity}
    if any(texts):
        before = extra.get(AGE_TEXT, missing)
        extra[AGE_TEXT] = [new or old for new, old in zip(texts, before, strict=True)]
    table = pd.DataFrame({**identity, **known_labels, **extra})
    visits = [record.visit or record.session_id for record in records]
    table["months_from_first"] = months_from_first(table, visits, shown, where)
    return table


def _months(cells: Iterable[object], names: Sequence[str], where: str) -> list[float | None]:
    """Return months of cells that hold a number or the code of a visit."""
    months: list[float | None] = []
    unread, impossible = [], []
    for name, cell in zip(names, cells, strict=True):
        text = "" if cell is None or cell != cell else str(cell).strip()
        try:
            number: float | None = float(text.replace(",", "."))
        except ValueError:
            number = months_of_visit(text) if text else None
        if number is not None and not 0 <= number <= MOST_MONTHS:
            if number == number:
                impossible.append(f"{name} ({text})")
            number = None
        elif number is None and text and text not in UNKNOWN:
            unread.append(f"{name} ({text})")
        months.append(number)
    if impossible:
        log.warning(
            "%s: months since the first scan, expected 0 to %d, taken as unknown: %s",
            where,
            MOST_MONTHS,
            few(impossible),
        )
    if unread:
        log.warning("%s: no number of months, taken as unknown: %s", where, few(unread))
    return months
