"""Report section: identification."""

from typing import Any

from pipeline.report.context import ReportContext

METHOD_NAMES = {
    "y_sem": "y_sem",
    "mode_amounts": "y_sem’s modes of latents alone",
    "tissue_amounts": "y_sem’s modes of tissue alone",
    "pca_latents": "PCA of latents, as many numbers",
    "scan": "voxels of the scan itself (bounds the next)",
    "decoded_y_sem": "brain decoded from y_sem",
}
KIND_NAMES = {"visit": "another visit", "copy": "a changed copy of the scan"}


def identification_section(context: ReportContext) -> dict[str, Any] | None:
    """Return rank-1 rates and mean reciprocal ranks, or None where that was not run."""
    found = context.evaluate and context.evaluate.identification
    if not found:
        return None
    rows = [
        (METHOD_NAMES.get(method, method.replace("_", " ")), KIND_NAMES.get(kind, kind), figures)
        for kind, methods in found.kinds.items()
        for method, figures in methods.items()
    ]
    return {
        "rows": rows,
        "people": found.people,
        "chance": found.chance,
        "skipped": found.skipped,
    }
