"""Report section: last visits foreseen from those before."""

from functools import partial
from typing import Any

import numpy as np

from pipeline.figures.brain_strips import forecast_strip
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder

METHOD_NAMES = {
    "ldae": "LDAE, mean of draws",
    "carried_forward": "last visit carried forward",
    "latent_trend": "latent trend",
    "voxel_trend": "voxel trend, of everybody",
    "voxel_trend_own": "voxel trend, own",
    "before": "visit before",
    "scan": "real visit",
    "spread": "spread of draws",
}
MEASURES = {
    "mse_brain": ("MSE, brain", 5),
    "ventricle_error_ml": ("Ventricle error (ml)", 2),
    "region_error_percent": ("Tissue error by region (%)", 2),
}
"""Measure to its heading and decimals; less is better."""
TARGET_NAMES = {
    "scan": "Against the real visit (models with the detail of the visit before)",
    "decoded": "Against the real visit as the autoencoder shows it",
}


def forecast_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return errors, coverage and strips of foreseen visits, or why there are none."""
    part = None if context.evaluate is None else context.evaluate.forecast
    if part is None or "skipped" in part:
        return None if part is None else {"about": part}
    pictures = context.pictures.get("forecast", {})
    order = ("before", "scan", "ldae", "latent_trend", "voxel_trend")
    strips = []
    for i in range(min(len(pictures.get("scan_id", ())), context.params.report.max_examples)):
        volumes = {name: pictures[name][i] for name in order if name in pictures}
        affine = context.grid.affine if context.grid else None
        draw = partial(
            forecast_strip, volumes, pictures["spread"][i], METHOD_NAMES,
            None if affine is None else np.asarray(affine, np.float64),
        )  # fmt: skip
        strips.append(
            {
                "scan_id": str(pictures["scan_id"][i]),
                "gap": float(pictures["gap_months"][i]),
                "picture": figures.brains(f"forecast_{i + 1}", draw),
            }
        )
    return {
        "about": part,
        "measures": MEASURES,
        "tables": [
            {
                "name": TARGET_NAMES[target],
                "rows": _named(methods),
                "minus": _named(part["ldae_minus"][target]),
                "coverage": _named(part["coverage"][target]),
            }
            for target, methods in part["all"].items()
        ],
        "strips": strips,
    }


def _named(methods: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(METHOD_NAMES.get(name, name), own) for name, own in methods.items()]
