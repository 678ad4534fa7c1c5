"""Report sections: manipulation, middle visits, generation."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.figures.brain_strips import generation_strip, interpolation_strip, manipulation_strip
from pipeline.figures.evaluation_plots import dose_plot, middle_visit_plot
from pipeline.metrics.verdicts import comparison
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder
from pipeline.report.sections.verdicts import doubt_of

MANIPULATION_NAMES = {"ldae": "LDAE", "pca": "PCA of latents"}
DOSE_PANELS = {
    "ventricle_ml": "Ventricles (ml), change",
    "score": "Score in y_sem, change",
    "identity": "Likeness outside ventricles",
}
VISIT_NAMES = {
    "ldae": "LDAE",
    "ldae_detail": "LDAE + detail",
    "latent_blend": "latent blend",
    "blend": "voxel blend",
    "nearest": "nearest visit",
    "before": "visit before",
    "scan": "real middle",
    "after": "visit after",
}
VISIT_MEASURES = {
    "mse_brain": ("MSE, brain", 4, False),
    "ssim_brain": ("SSIM, brain", 3, True),
    "ventricle_error_ml": ("Ventricle error (ml)", 2, False),
}
"""Measure to its heading, decimals, and whether more is better."""
TARGET_NAMES = {
    "scan": "Against the real scan",
    "decoded": "Against the real scan as the autoencoder shows it (its blur on both sides)",
}
GENERATION_NAMES = {
    "held_out": "Held-out scans, decoded",
    "denoiser": "Denoiser alone",
    "prior": "LDAE, y_sem drawn",
}


def affine_of(context: ReportContext) -> NDArray[np.float64] | None:
    """Return voxel to MNI152 world (mm), where it is known."""
    affine = context.grid.affine if context.grid else None
    return None if affine is None else np.asarray(affine, dtype=np.float64)


def part_of(context: ReportContext, name: str) -> Mapping[str, Any] | None:
    """Return the figures of one part, or None where it was not run."""
    if context.evaluate is None:
        return None
    parts = {
        "manipulation": context.evaluate.manipulation,
        "interpolation": context.evaluate.interpolation,
        "generation": context.evaluate.generation,
    }
    return parts[name]


def manipulation_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return dose-response figures, plot and strips."""
    part = part_of(context, "manipulation")
    if part is None or "skipped" in part:
        return None if part is None else {"skipped": part["skipped"]}
    responses = context.per_scan["manipulation"]
    unit = str(part.get("scale_unit", "SD along the direction"))
    strips = []
    pictures = context.pictures.get("manipulation", {})
    methods = [name for name in MANIPULATION_NAMES if name in pictures]
    for i in range(min(len(pictures.get("scan_id", ())), context.params.report.max_examples)):
        volumes = {name: pictures[name][i] for name in methods}
        draw = partial(
            manipulation_strip, volumes, MANIPULATION_NAMES, part["scales"], affine_of(context)
        )
        picture = figures.brains(f"manipulation_{i + 1}", draw)
        strips.append({"scan_id": str(pictures["scan_id"][i]), "picture": picture})
    return {
        "direction": part["direction"],
        "doubt": doubt_of(part["direction"], context.probe),
        "unit": unit,
        "subjects": part["subjects"],
        "rows": [(MANIPULATION_NAMES.get(m, m), f) for m, f in part["methods"].items()],
        "picture": figures.plot(
            "dose_response",
            lambda palette: dose_plot(
                responses, DOSE_PANELS, MANIPULATION_NAMES, palette, unit=unit
            ),
        ),
        "strips": strips,
    }


def interpolation_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return figures of the filled-in visits, who wins where, plot and strips."""
    part = part_of(context, "interpolation")
    if part is None or "skipped" in part:
        return None if part is None else {"skipped": part["skipped"]}
    titles = {measure: heading for measure, (heading, _, _) in VISIT_MEASURES.items()}
    groups = {name: by["scan"] for name, by in part["by_gap"].items()}
    pictures = context.pictures.get("interpolation", {})
    order = ("before", "scan", "ldae", "ldae_detail", "latent_blend", "blend", "nearest", "after")
    strips = []
    for i in range(min(len(pictures.get("scan_id", ())), context.params.report.max_examples)):
        volumes = {name: pictures[name][i] for name in order if name in pictures}
        draw = partial(interpolation_strip, volumes, VISIT_NAMES, affine_of(context))
        strips.append(
            {
                "scan_id": str(pictures["scan_id"][i]),
                "gap": float(pictures["gap_months"][i]),
                "picture": figures.brains(f"middle_visit_{i + 1}", draw),
            }
        )
    return {
        "visits": part["visits"],
        "columns": VISIT_MEASURES,
        "tables": [
            {
                "name": TARGET_NAMES[target],
                "rows": [(VISIT_NAMES.get(m, m), figures_of) for m, figures_of in methods.items()],
            }
            for target, methods in part["all"].items()
        ],
        "gaps": [
            (name, part["visits_by_gap"][name], [(VISIT_NAMES[m], f) for m, f in methods.items()])
            for name, methods in groups.items()
        ],
        "verdicts": list(verdicts(part)),
        **_by_region(part),
        "picture": figures.plot(
            "middle_visits",
            lambda palette: middle_visit_plot(groups, titles, VISIT_NAMES, palette),
        ),
        "strips": strips,
    }


def _by_region(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error of each method by coarse region, and from which the LDAE differs."""
    regions = part.get("by_region") or {}
    methods = list(next(iter(regions.values()), {}))
    rows = []
    for region, errors in regions.items():
        words = [
            f"{word} than {VISIT_NAMES[rival]}"
            for rival, difference in part["by_region_minus"][region].items()
            if (word := comparison(difference, more_is_better=False)) in ("better", "worse")
        ]
        rows.append({"region": region, "errors": [errors[m] for m in methods], "words": words})
    return {"by_region": rows, "region_methods": [VISIT_NAMES.get(m, m) for m in methods]}


def verdicts(visits: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield who is nearer to the real middle visit, by paired differences and their intervals."""
    for ours in ("ldae", "ldae_detail"):
        for rival, measures in visits.get(f"{ours}_minus", {}).get("scan", {}).items():
            cells = []
            for measure, (_, _, more_is_better) in VISIT_MEASURES.items():
                estimate = measures[measure]
                word = comparison(estimate, more_is_better=more_is_better)
                cells.append({"estimate": estimate, "verdict": word, "measure": measure})
            yield {"ours": VISIT_NAMES[ours], "rival": VISIT_NAMES[rival], "cells": cells}


def generation_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return figures of generated brains beside held-out ones, and a strip."""
    part = part_of(context, "generation")
    if part is None or "skipped" in part:
        return None if part is None else {"skipped": part["skipped"]}
    pictures = context.pictures.get("generation", {})
    sets = {name: pictures[name] for name in GENERATION_NAMES if name in pictures}
    draw = partial(generation_strip, sets, GENERATION_NAMES, affine_of(context))
    return {
        "medicalnet": part["medicalnet"],
        "brains": part["brains"],
        "rows": [(GENERATION_NAMES.get(name, name), f) for name, f in part["sets"].items()],
        "picture": figures.brains("generation", draw) if sets else None,
    }
