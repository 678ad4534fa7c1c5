"""Report sections: change by region, and counterfactuals against the true ones."""

from collections.abc import Mapping
from typing import Any

from pipeline.figures.style import data_uri
from pipeline.report.context import ReportContext
from schemas.results import RegionEffect

SHOWN = 12
"""Regions of a table, those that change most."""
METHOD_NAMES = {
    "ldae": "LDAE",
    "pca": "PCA of latents",
    "latent_shift": "mean shift of latents",
    "no_change": "no change",
}
MEASURES = {
    "mse_brain": ("MSE, brain", 5),
    "ventricle_error_ml": ("Ventricle error (ml)", 2),
    "region_error_percent": ("Error by region (%)", 2),
}
"""Measure of a counterfactual to its heading and decimals; less is better."""


def region_section(context: ReportContext) -> dict[str, Any] | None:
    """Return what `pipeline regions` found, or None where that was not run."""
    found = context.regions
    if found is None:
        return None
    pictures = {
        name.removesuffix("_glass"): data_uri(png, "png")
        for name, png in context.region_pictures.items()
    }
    groups = [
        {
            "name": name,
            "rows": _most_changed(effects),
            "picture": pictures.get(name.replace(" ", "_").replace("/", "-")),
            "found": sum(e.p_holm is not None and e.p_holm < 0.05 for e in effects.values()),
            "regions": len(effects),
        }
        for name, effects in found.groups.items()
    ]
    return {
        "found": found,
        "groups": groups,
        "remarks": [*found.remarks, *(f"{who}: {why}" for who, why in found.skipped.items())],
    }


def _most_changed(effects: Mapping[str, RegionEffect]) -> list[tuple[str, RegionEffect]]:
    """Return the regions that change most, and all that are not of the atlas."""

    def size(row: tuple[str, RegionEffect]) -> float:
        change = row[1].volume_percent
        return 0.0 if change is None else -abs(change.value)

    own = [row for row in effects.items() if row[1].kind == "atlas"]
    others = [row for row in effects.items() if row[1].kind != "atlas"]
    return [*others, *sorted(own, key=size)[:SHOWN]]


def true_counterfactual_section(context: ReportContext) -> dict[str, Any] | None:
    """Return the errors of made counterfactuals against the true ones."""
    part = None if context.evaluate is None else context.evaluate.true_counterfactuals
    if part is None or "skipped" in part:
        return part
    measures = {name: how for name, how in MEASURES.items() if name in part["methods"]["ldae"]}
    rows = [(METHOD_NAMES.get(name, name), own) for name, own in part["methods"].items()]
    return {
        "measures": measures,
        "rows": rows,
        "minus": [(METHOD_NAMES.get(name, name), own) for name, own in part["minus"].items()],
        "people": part["people"],
        "direction": part["direction"],
        "changes": part["changes"],
    }
