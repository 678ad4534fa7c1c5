"""candidates.csv: the images of each scan, in the order in which they are tried."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.labels.scan_records import ScanRecord, read_table
from pipeline.runtime.files import write_atomic
from schemas.errors import ContractError
from schemas.manifest import CANDIDATE_COLUMNS

FILE = "candidates.csv"
"""File name; it lies beside the manifest."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Scans of an input: those taken, those refused, and further images of each."""

    manifest: pd.DataFrame
    """One row a scan (schemas.manifest)."""
    refused: pd.DataFrame
    """One row an image that is not taken, with the reason."""
    candidates: pd.DataFrame
    """One row an image of scans with several, or with oddities (schemas.manifest)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image of a scan."""

    path: str
    note: str
    """Oddities of the image; empty for none."""


def candidate_table(records: Iterable[ScanRecord]) -> pd.DataFrame:
    """Return the images (absolute paths) of records with several images or with oddities."""
    rows = []
    for record in records:
        if record.notes or record.others:
            images = [(record.path, "; ".join(record.notes)), *record.others]
            rows += [(record.scan_id, str(path.absolute()), note) for path, note in images]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS), dtype=object)


def write_candidates(candidates: pd.DataFrame, path: Path) -> None:
    """Write the table, paths below its folder as relative ones; without rows, remove the file."""
    if candidates.empty:
        path.unlink(missing_ok=True)
        return
    table, folder = candidates.copy(), path.parent.resolve()
    table["path"] = [
        str(p.relative_to(folder)) if p.is_relative_to(folder) else str(p)
        for p in map(Path, table["path"])
    ]
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    write_atomic(path, text.getvalue())


def read_candidates(path: Path) -> dict[str, list[Candidate]]:
    """Return scan_id → images in the order in which they are tried; {} if there is no file.

    Raises
    ------
    ContractError
        If a column is missing.
    """
    if not path.is_file():
        return {}
    table = read_table(path)
    missing = [name for name in CANDIDATE_COLUMNS if name not in table]
    if missing:
        raise ContractError(f"{path}: no column {', '.join(missing)}; run `pipeline cohort` again")
    return candidates_of(table, path.parent)


def candidates_of(table: pd.DataFrame, folder: Path) -> dict[str, list[Candidate]]:
    """Return scan_id → images from a table, whose relative paths start at `folder`."""
    images: dict[str, list[Candidate]] = {}
    filled = table.dropna(subset=["scan_id", "path"]).fillna({"note": ""})
    for scan_id, path, note in filled[list(CANDIDATE_COLUMNS)].itertuples(index=False):
        images.setdefault(scan_id, []).append(Candidate(str(folder.absolute() / path), note))
    return images
