"""What a dry run says: which scans would be taken, with which labels, and which not."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from pipeline.compute import available_cpus, counted
from pipeline.imaging.read import check_header
from schemas.errors import ScanError
from schemas.manifest import MANIFEST_COLUMNS

SHOWN = 20
"""Scans, and refused scans, that are named."""
NO_LABELS = ("scan_id", "subject_id", "session_id", "path", "source_digest", "split")


def header_faults(manifest: pd.DataFrame) -> dict[str, str]:
    """Return what the headers of a manifest's files say against them, by scan id."""
    with ThreadPoolExecutor(max(1, min(8, available_cpus()))) as pool:
        found = list(pool.map(_header_fault, map(Path, manifest["path"])))
    return {s: f for s, f in zip(manifest["scan_id"], found, strict=True) if f is not None}


def _header_fault(path: Path) -> str | None:
    try:
        check_header(path)
    except (ScanError, OSError) as error:
        return str(error)
    return None


def preview_lines(
    manifest: pd.DataFrame, refused: pd.DataFrame, faults: Mapping[str, str]
) -> Iterator[str]:
    """Yield counts, label columns, the first scans, and what is refused with its reason.

    `faults` are those of headers: `cohort` takes such files, `preprocess` will refuse them.
    """
    subjects = manifest.groupby("split")["subject_id"].nunique()
    splits = ", ".join(f"{split} {count}" for split, count in subjects.items())
    people = counted(manifest["subject_id"].nunique(), "subject")
    yield (
        f"{counted(len(manifest), 'scan')} of {people} would be taken ({splits}),"
        f" {len(refused)} refused; nothing written"
    )
    yield ""
    yield "label (filled)"
    for name in manifest.columns.drop(list(NO_LABELS)):
        own = "" if name in MANIFEST_COLUMNS else ", kept under its own name"
        yield f"  {name} ({manifest[name].notna().mean():.0%}{own})"
    yield ""
    yield from _listed(
        [f"  {r.scan_id}  {r.split}  {r.path}" for r in manifest.itertuples()], "taken"
    )
    if len(refused):
        yield ""
        rows = [f"  {r.scan_id}  {r.path}: {r.reason}" for r in refused.itertuples()]
        yield from _listed(rows, "refused")
    if faults:
        yield ""
        rows = [f"  {scan_id}: {fault}" for scan_id, fault in faults.items()]
        yield from _listed(rows, "taken, but preprocess will refuse them")


def _listed(lines: list[str], title: str) -> Iterator[str]:
    yield title
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  and {len(lines) - SHOWN} more"
