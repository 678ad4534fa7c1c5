"""JSON sidecars of tables (BIDS): units of ages and months, meanings of codes."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.labels.columns import role_columns
from pipeline.labels.label_parsing import SEXES, sex_of
from pipeline.labels.names import plain, whole_numbers
from pipeline.labels.visits import UNITS

log = logging.getLogger(__name__)

UNIT_WORDS = {
    "y": "y", "yr": "y", "yrs": "y", "year": "y", "years": "y", "anno": "y", "anni": "y",
    "jahre": "y", "m": "m", "mo": "m", "mos": "m", "mon": "m", "mth": "m", "mths": "m",
    "month": "m", "months": "m", "mesi": "m", "monate": "m", "w": "w", "wk": "w", "wks": "w",
    "week": "w", "weeks": "w", "d": "d", "day": "d", "days": "d",
}  # fmt: skip
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


def read_sidecar(*paths: Path) -> dict[str, dict[str, Any]]:
    """Return column → description from JSON files, later ones over earlier; {} if none exists.

    A file that cannot be read is skipped with a warning.
    """
    described: dict[str, dict[str, Any]] = {}
    for path in paths:
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            log.warning("%s: no valid JSON (%s); columns are read without it", path, error)
            continue
        if isinstance(content, dict):
            described |= {str(k): v for k, v in content.items() if isinstance(v, dict)}
    return described


def decoded(
    table: pd.DataFrame,
    sidecar: Mapping[str, dict[str, Any]],
    columns: Mapping[str, str],
    where: Path,
) -> pd.DataFrame:
    """Return a table with units applied to ages and months, and codes of sex and diagnosis decoded.

    Ages that are plain numbers in other units than years get the letter of the unit (`840` months
    become `840M`, which `ages_of` parses); times in other units become months. Codes of sex in
    `Levels` become F or M, and numbers of diagnoses their words; other diagnoses stay.
    """  # fmt: skip
    table = table.copy()
    spelt = {plain(name): entry for name, entry in sidecar.items()}
    for role, column in role_columns([str(c) for c in table.columns], columns).items():
        entry = sidecar.get(column, spelt.get(plain(column), {}))
        cells = list(table[column])
        if role in {"age_years", "months_from_first"}:
            unit = _unit(entry, column, where, default="y" if role == "age_years" else "m")
            convert = _with_letter if role == "age_years" else _in_months
            cells = [convert(cell, unit) for cell in cells]
        elif role in {"sex", "diagnosis"}:
            levels = _levels(entry)
            cells = [_meaning(cell, levels, role) for cell in whole_numbers(cells)]
        table[column] = pd.Series(cells, index=table.index, dtype=object)
    return table


def _unit(entry: Mapping[str, Any], column: str, where: Path, *, default: str) -> str:
    """Return the unit y, m, w or d from the sidecar's `Units`, else from the column's name."""
    given = str(entry.get("Units") or entry.get("units") or "")
    words = re.findall(r"[a-z]+", given.lower())
    unit = next((UNIT_WORDS[word] for word in words if word in UNIT_WORDS), None)
    if unit is not None:
        return unit
    # UCUM calls the year `a`.
    if words and given.strip().lower() not in {"a", "n/a", "na", "none"}:
        log.warning(
            "%s: Units of %s are %r in the JSON file beside it, expected years, months, weeks or"
            " days; taken as %s",
            where, column, given, "years" if default == "y" else "months",
        )  # fmt: skip
    parts = re.findall(r"[a-z]+", column.lower())[1:]
    return next((UNIT_WORDS[p] for p in parts if len(p) > 1 and p in UNIT_WORDS), default)


def _with_letter(cell: object, unit: str) -> object:
    if unit == "y" or not isinstance(cell, str) or not NUMBER.fullmatch(cell.strip()):
        return cell
    return cell.strip() + unit.upper()


def _in_months(cell: object, unit: str) -> object:
    if unit == "m" or not isinstance(cell, str) or not NUMBER.fullmatch(cell.strip()):
        return cell
    return f"{float(cell.strip().replace(',', '.')) * UNITS[unit]:.2f}"


def _levels(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return code → words from `Levels`, whose entries are words or have a Description."""
    levels = entry.get("Levels") or entry.get("levels")
    words: dict[str, str] = {}
    for code, meaning in levels.items() if isinstance(levels, dict) else ():
        if isinstance(meaning, dict):
            meaning = meaning.get("Description") or meaning.get("LongName")
        if isinstance(meaning, str) and meaning.strip():
            words[_code(str(code))] = meaning.strip()
    return words


def _code(text: str) -> str:
    """Return a code in the form that is compared: `1.0` and `01` as 1, letters small."""
    text = text.strip().casefold()
    return f"{float(text):g}" if re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else text


def _meaning(cell: object, levels: Mapping[str, str], role: str) -> object:
    if not isinstance(cell, str) or _code(cell) not in levels:
        return cell
    words = levels[_code(cell)]
    if role == "diagnosis":
        return words if NUMBER.fullmatch(cell.strip().lstrip("+-")) else cell
    # `female participant` and `Male (1)` are one sex; `male or female` is none.
    sexes = {SEXES[w] for w in re.findall(r"\w+", words.lower()) if w in SEXES}
    return sexes.pop() if len(sexes) == 1 else sex_of(words) or cell
