"""Report sections of commands of their own: scanner, brain age, change over visits."""

from typing import Any

from pipeline.report.context import ReportContext

SETS = {
    "y_sem": "y_sem",
    "pca_latents": "PCA of latents",
    "pca_voxels": "PCA of volumes",
}
PARTS = {
    "person": "Person",
    "visit": "Visit",
    "site": "Site",
    "person_site": "Person × site",
    "scan": "Scan",
}


def scanner_section(context: ReportContext) -> dict[str, Any] | None:
    """Return what `pipeline scanner` found, or None where that was not run."""
    found = context.scanner
    if found is None:
        return None
    names = list(dict.fromkeys([*found.reading, *found.shares, *found.distances]))
    return {
        "found": found,
        "rows": [
            (
                SETS.get(name, name),
                found.reading.get(name),
                found.shares.get(name, {}),
                found.distances.get(name, {}),
            )
            for name in names
        ],
        "parts": PARTS,
        "remarks": [*found.remarks, *found.skipped.values()],
    }


def brain_age_section(context: ReportContext) -> dict[str, Any] | None:
    """Return what `pipeline brain-age` found, or None where that was not run."""
    return None if context.brain_age is None else {"found": context.brain_age}


def longitudinal_section(context: ReportContext) -> dict[str, Any] | None:
    """Return what `pipeline longitudinal` found, or None where that was not run."""
    found = context.longitudinal
    if found is None:
        return None
    return {"found": found, "remarks": [*found.remarks, *found.skipped.values()]}
