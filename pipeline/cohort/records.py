"""What every source yields: one record a scan, before digests, labels and split."""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from schemas.errors import ContractError

MISSING = ["", "n/a", "N/A", "nan", "NaN", "NULL", "null"]
"""Cells read as missing. `NA` and `None` stay: both are used as names and codes."""


@dataclass
class Record:
    """One scan that a source offers."""

    scan_id: str
    subject_id: str
    session_id: str
    path: Path
    labels: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is odd about the image; each becomes a warning of its QC."""
    others: tuple[tuple[Path, str], ...] = ()
    """Further images of the same visit in the order in which they are tried, with what is odd."""


def bids_label(text: str) -> str:
    """Return a name cut down to the letters and digits that BIDS allows.

    `002_S_1` becomes `002S1`; accents are dropped (`zoë` becomes `zoe`).
    """
    return re.sub(r"[^A-Za-z0-9]", "", unicodedata.normalize("NFKD", text))


def prefixed(kind: str, name: str) -> str:
    """Return `sub-<label>` or `ses-<label>`, whether or not the name had the prefix."""
    label = bids_label(name.removeprefix(f"{kind}-"))
    return f"{kind}-{label}" if label else ""


def entities(name: str) -> dict[str, str]:
    """Return the BIDS entities of a file name: `sub-1_ses-2_T1w.nii.gz` → {sub: 1, ses: 2}."""
    stem = name.split(".", 1)[0]
    return dict(part.split("-", 1) for part in stem.split("_") if "-" in part)


def natural(text: str) -> list[tuple[str, int]]:
    """Return a sort key in which `run-2` comes before `run-10`."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", text)]


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder below (and with) a root and the names of what is no folder in it.

    Links to folders are followed, each folder once; links that lead nowhere are named too, so that
    they can be refused with a reason.
    """
    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders.sort()
        real = {name: Path(folder, name).resolve() for name in subfolders}
        subfolders[:] = [name for name in subfolders if real[name] not in seen]
        seen.update(real.values())
        yield Path(folder), sorted(names)


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV, TSV or Parquet with every cell as text, so that `001` stays `001`.

    Raises
    ------
    ContractError
        If the table cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
            text = table.astype("string").astype(object)
            return text.where(table.notna() & ~text.isin(MISSING), None)
        return pd.read_csv(
            path, sep=_separator(path), dtype=str, keep_default_na=False, na_values=MISSING,
            encoding="utf-8-sig", skipinitialspace=True,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from error
    except (OSError, ValueError, pd.errors.ParserError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ContractError(f"{path}: unreadable table ({first})") from error


def _separator(path: Path) -> str:
    """Return the commonest separator of a header line; a `.tsv` has tabs."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def labels_of(row: "pd.Series[Any]", *, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the filled cells of a table row."""
    return {str(k): v for k, v in row.items() if k not in drop and pd.notna(v)}
