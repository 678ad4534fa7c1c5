"""What a dry run says: which scans would be taken, with which labels, and which not."""

from collections.abc import Iterator

import pandas as pd

from schemas.manifest import MANIFEST_COLUMNS

SHOWN = 20
"""Scans, and refused scans, that are named."""
NO_LABELS = ("scan_id", "subject_id", "session_id", "path", "source_digest", "split")


def preview_lines(manifest: pd.DataFrame, refused: pd.DataFrame) -> Iterator[str]:
    """Yield counts, label columns, the first scans, and what is refused with its reason."""
    subjects = manifest.groupby("split")["subject_id"].nunique()
    splits = ", ".join(f"{split} {count}" for split, count in subjects.items())
    yield (
        f"{len(manifest)} scans of {manifest['subject_id'].nunique()} subjects would be taken"
        f" ({splits}), {len(refused)} refused; nothing written"
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


def _listed(lines: list[str], title: str) -> Iterator[str]:
    yield title
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  and {len(lines) - SHOWN} more"
