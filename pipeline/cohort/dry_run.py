"""Text of a dry run: scans that would be taken, their labels, and what would be refused."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from pipeline.cohort.candidates import Cohort
from pipeline.imaging.read import check_header
from pipeline.runtime.devices import available_cpus
from pipeline.runtime.progress import counted
from schemas.errors import ScanError
from schemas.manifest import MANIFEST_COLUMNS, SELECTION

SHOWN = 20
"""Largest number of scans, and of refused scans, that are listed by name."""
NO_LABELS = ("scan_id", "subject_id", "session_id", "path", "source_digest", "split")


def header_faults(manifest: pd.DataFrame) -> dict[str, str]:
    """Return scan id → fault, for the files of a manifest whose header cannot be used."""
    with ThreadPoolExecutor(max(1, min(8, available_cpus()))) as pool:
        faults = list(pool.map(_header_fault, map(Path, manifest["path"])))
    return {s: f for s, f in zip(manifest["scan_id"], faults, strict=True) if f is not None}


def _header_fault(path: Path) -> str | None:
    try:
        check_header(path)
    except (ScanError, OSError) as error:
        return str(error)
    return None


def preview_lines(cohort: Cohort, faults: Mapping[str, str], *, every: bool) -> Iterator[str]:
    """Yield counts, label columns, scans, refused images and other images, with reasons.

    `faults` are those of headers: `cohort` takes such files, `preprocess` will refuse them, or try
    the next image of the session. With `every` all are listed, else the first few.
    """
    manifest = cohort.manifest
    left = cohort.refused[cohort.refused["stage"] == SELECTION]
    refused = cohort.refused[cohort.refused["stage"] != SELECTION]
    notes = dict(cohort.candidates.drop_duplicates("scan_id")[["scan_id", "note"]].to_numpy())
    subjects = manifest.groupby("split")["subject_id"].nunique()
    splits = ", ".join(f"{split} {count}" for split, count in subjects.items())
    people = counted(manifest["subject_id"].nunique(), "subject")
    yield (
        f"{counted(len(manifest), 'scan')} of {people} would be taken ({splits}),"
        f" {len(refused)} refused, {counted(len(left), 'other image')} left out; nothing written"
    )
    yield ""
    yield "label (filled)"
    for name in manifest.columns.drop(list(NO_LABELS)):
        kept = "" if name in MANIFEST_COLUMNS else ", kept under its own name"
        yield f"  {name} ({manifest[name].notna().mean():.0%}{kept})"
    sections = {
        "taken": [
            f"  {r.scan_id}  {r.split}  {r.path}" + (f"  ({note})" if note else "")
            for r in manifest.itertuples()
            for note in [notes.get(r.scan_id, "")]
        ],
        "refused": [f"  {r.scan_id}  {r.path}: {r.reason}" for r in refused.itertuples()],
        "left out": [f"  {r.scan_id}  {r.path}: {r.reason}" for r in left.itertuples()],
        "taken, but preprocess will refuse them": [f"  {k}: {v}" for k, v in faults.items()],
    }
    for title, lines in sections.items():
        if lines:
            yield ""
            yield from _listed(title, lines, every=every)


def _listed(title: str, lines: list[str], *, every: bool) -> Iterator[str]:
    yield title
    yield from lines if every else lines[:SHOWN]
    if len(lines) > SHOWN and not every:
        yield f"  and {len(lines) - SHOWN} more (--verbose lists all)"
