"""Scan records, which every source yields one a scan, and the reading of folders and tables."""

import csv
import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from schemas.errors import ContractError

log = logging.getLogger(__name__)

MISSING = ["", "n/a", "N/A", "nan", "NaN", "NULL", "null"]
"""Cells read as missing. `NA` and `None` stay: both are used as names and codes."""
JUNK = ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "#recycle", "lost+found")
"""Files and folders that operating systems and file servers leave behind."""
DECIMAL_COMMA = re.compile(r"\s*[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+\s*")


@dataclass
class ScanRecord:
    """One scan of a source, before digest and split."""

    scan_id: str
    subject_id: str
    session_id: str
    path: Path
    labels: dict[str, Any] = field(default_factory=dict)
    visit: str = ""
    """Name of the visit as the source writes it, where it is not the session's."""
    notes: tuple[str, ...] = ()
    """Oddities of the image; each becomes a warning of its QC."""
    others: tuple[tuple[Path, str], ...] = ()
    """Further images of the same visit, in the order in which they are tried, with oddities."""


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


def natural_key(text: str) -> list[tuple[str, int]]:
    """Return a sort key in which `run-2` comes before `run-10`."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", text)]


def walk(
    root: Path, closed: list[tuple[Path, str]] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield a root and every folder below it, each with the names of its files.

    Links to folders are followed, each folder once; links that lead nowhere are named too, so that
    they can be refused with a reason. Hidden files and those of operating systems are skipped.
    Folders that cannot be opened are added to `closed` with the reason.
    """

    def note(error: OSError) -> None:
        if closed is not None:
            closed.append((Path(error.filename), f"cannot be opened ({error.strerror})"))

    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, onerror=note, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not is_junk(name))
        real = {name: Path(folder, name).resolve() for name in subfolders}
        subfolders[:] = [name for name in subfolders if real[name] not in seen]
        seen.update(real.values())
        yield Path(folder), sorted(name for name in names if not is_junk(name))


def is_junk(name: str) -> bool:
    """Return whether a name is hidden (`._a.nii.gz` of a Mac, `.git`) or of a system file."""
    return name.startswith(".") or name in JUNK


def tidy_path(path: Path) -> Path:
    """Return an absolute path without `x/../`; links are kept where that is safe."""
    whole = path.absolute()
    if ".." not in whole.parts:
        return whole
    short = Path(os.path.normpath(whole))
    try:
        # Behind a link to a folder, `..` leads elsewhere than its name says.
        return short if short.exists() and short.samefile(whole) else whole.resolve(strict=True)
    except OSError:
        return whole.resolve()


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV, TSV or Parquet with every cell as text, so that `001` stays `001`.

    Where semicolons separate the cells, commas in numbers are decimal: `61,5` becomes `61.5`.

    Raises
    ------
    ContractError
        If the table cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
            text = table.astype("string").astype(object)
            text = text.where(table.notna(), None)
        else:
            text = _read_text(path)
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from error
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        if longer := _longer_row(path):
            raise ContractError(
                f"{path}: {longer}; put a cell that holds a separator in quotes"
            ) from error
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ContractError(f"{path}: unreadable table ({first})") from error
    text.columns = [str(name).strip() for name in text.columns]
    blank = text.apply(lambda cells: cells.astype(str).str.strip().isin(MISSING))
    return text.where(~blank, None)


def _read_text(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [file.readline(), file.readline()]
    # Spreadsheets may put `sep=;` above the header.
    declared = re.fullmatch(r"\s*sep=(.)\s*", lines[0], re.IGNORECASE)
    header = lines[1] if declared else lines[0]
    separator = declared[1] if declared else _separator(header, path)
    _warn_of_repeated_columns(
        path, next(csv.reader([header.strip("\r\n")], delimiter=separator), [])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # A separator at the end of each line would else make an index of the first column.
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, na_values=MISSING,
            encoding="utf-8-sig", skipinitialspace=True, index_col=False,
            skiprows=1 if declared else 0,
        )  # fmt: skip
    table = table.astype(object)
    return table.apply(_with_points) if separator == ";" else table


def _longer_row(path: Path) -> str | None:
    """Return in words which line of a text table has more cells than the header, or None."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if re.fullmatch(r"\s*sep=.\s*", first, re.IGNORECASE):
                first = file.readline()
            separator = _separator(first, path)
            header = len(next(csv.reader([first.strip("\r\n")], delimiter=separator), []))
            rows = csv.reader(file, delimiter=separator)
            for row in rows:
                if any(cell.strip() for cell in row[header:]):
                    return f"line {rows.line_num + 1} has {len(row)} cells, the header {header}"
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    return None


def _separator(header: str, path: Path) -> str:
    """Return the commonest separator of a header line; in a `.tsv` a tab where there is one."""
    if path.suffix.lower() == ".tsv" and ("\t" in header or not set(",;") & set(header)):
        return "\t"
    return max(",;\t", key=header.count)


def _with_points(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column with decimal points, if its commas are decimal ones."""
    with_comma = cells[cells.str.contains(",", na=False)]
    if with_comma.empty or not with_comma.str.fullmatch(DECIMAL_COMMA).all():
        return cells
    numbers = with_comma.str.replace(".", "").str.replace(",", ".")
    return numbers.reindex(cells.index).fillna(cells)


def _warn_of_repeated_columns(path: Path, header: list[str]) -> None:
    names = [name.strip() for name in header]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        log.warning(
            "%s: more than one column %s; the first is used, the others are kept as %s.1",
            path,
            ", ".join(repeated),
            repeated[0],
        )


def labels_of(row: "pd.Series[Any]", *, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the filled cells of a table row."""
    return {str(k): v for k, v in row.items() if k not in drop and pd.notna(v)}
