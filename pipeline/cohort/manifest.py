"""Write manifest.csv, and read it back with its contract checked."""

import io
from pathlib import Path

import pandas as pd

from pipeline.labels.label_parsing import UNKNOWN
from pipeline.labels.scan_records import read_table
from pipeline.runtime.files import write_atomic
from pipeline.runtime.progress import few
from schemas.errors import ContractError
from schemas.manifest import MANIFEST_COLUMNS, NUMERIC_COLUMNS, SPLITS

REQUIRED_CELLS = ("scan_id", "subject_id", "path", "source_digest", "split")


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write a manifest with paths below its folder as relative ones, so that it can move."""
    check_manifest(manifest, path)
    folder = path.parent.resolve()
    table = manifest.copy()
    table["path"] = [_relative(Path(p), folder) for p in table["path"]]
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    write_atomic(path, text.getvalue())


def read_manifest(path: Path) -> pd.DataFrame:
    """Return a manifest with ids as strings and numbers as floats.

    Raises
    ------
    ContractError
        If a column or cell is missing, an id is not unique, or a subject is in two splits.
    """
    if not path.is_file():
        raise ContractError(f"{path}: no such manifest; run `pipeline cohort`")
    table = read_table(path)
    table = typed(table.fillna({"session_id": ""}) if "session_id" in table else table, path)
    check_manifest(table, path)
    return table


def typed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the table with numbers in numeric columns, and in labels that hold nothing else.

    Raises
    ------
    ContractError
        If age or months hold text.
    """
    table = table.copy()
    for name in table.columns:
        cells = table[name]
        known = cells.where(~cells.isin(UNKNOWN), None)
        if name in NUMERIC_COLUMNS:
            cells = known
            numbers = pd.to_numeric(cells, errors="coerce")
            bad = cells.notna() & numbers.isna()
            if bad.any():
                rows = _named(table[bad])
                raise ContractError(
                    f"{path}: {name} is {cells[bad].iloc[0]!r} for {rows}, expected a number;"
                    " correct it or leave it empty"
                )
            table[name] = numbers.astype(float)
        elif name not in MANIFEST_COLUMNS:
            filled = known.dropna().astype(str)
            numbers = pd.to_numeric(filled, errors="coerce")
            coded = filled.str.match(r"^[+-]?0\d").any()  # 007 is a code, not a number
            if len(filled) and numbers.notna().all() and not coded:
                table[name] = pd.to_numeric(known, errors="coerce").astype(float)
    return table


def check_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Refuse a manifest that later stages could misread.

    Raises
    ------
    ContractError
        Naming the column and the rows.
    """
    missing = [name for name in MANIFEST_COLUMNS if name not in manifest]
    if missing:
        raise ContractError(f"{path}: columns {', '.join(missing)} are missing")
    if manifest.empty:
        raise ContractError(f"{path}: no scans; look at quarantine.csv beside it")
    for name in REQUIRED_CELLS:
        empty = manifest[name].isna() | (manifest[name].astype(str) == "")
        if empty.any():
            raise ContractError(f"{path}: {name} is empty for {_named(manifest[empty])}")
    double = manifest["scan_id"].duplicated(keep=False)
    if double.any():
        raise ContractError(f"{path}: scan_id is not unique: {_named(manifest[double])}")
    unknown = ~manifest["split"].isin(SPLITS)
    if unknown.any():
        raise ContractError(
            f"{path}: split is {manifest['split'][unknown].iloc[0]!r}, expected one of "
            f"{', '.join(SPLITS)}: {_named(manifest[unknown])}"
        )
    splits = manifest.groupby("subject_id")["split"].transform("nunique")
    if (splits > 1).any():
        raise ContractError(f"{path}: a subject in two splits: {_named(manifest[splits > 1])}")


def _named(rows: pd.DataFrame) -> str:
    """Return the first few rows as `scan_id (row N of the file)`."""
    names = [f"{row.get('scan_id', '?')} (row {int(str(i)) + 2})" for i, row in rows.iterrows()]
    return few(names)


def _relative(path: Path, folder: Path) -> str:
    absolute = path if path.is_absolute() else folder / path
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)
