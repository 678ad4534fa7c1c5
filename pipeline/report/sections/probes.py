"""Report section: probes."""

from typing import Any

import pandas as pd

from pipeline.figures.probe_plots import (
    FEATURE_NAMES,
    calibration_plot,
    feature_name,
    roc_and_scatter,
)
from pipeline.metrics.sample_sizes import what_people_show
from pipeline.metrics.verdicts import chance_doubt
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder
from pipeline.report.sections.verdicts import verdict_of
from schemas.metrics import Estimate
from schemas.results import (
    PROTOCOLS,
    FiguresOfSets,
    ProbeMetrics,
    Protocol,
    ProtocolSizes,
    TargetResult,
)

PROBE_COLUMNS = {
    "roc_auc": ("ROC-AUC", 3),
    "pr_auc": ("PR-AUC", 3),
    "balanced_accuracy": ("Balanced acc.", 3),
    "accuracy": ("Accuracy", 3),
    "sensitivity": ("Sensitivity", 3),
    "specificity": ("Specificity", 3),
    "f1": ("F1", 3),
    "mcc": ("MCC", 3),
    "brier": ("Brier", 3),
    "calibration_error": ("Calibration error", 3),
    "effect_size": ("d", 2),
    "calibration_slope": ("slope", 2),
    "calibration_intercept": ("in the large", 2),
    "mae": ("MAE", 2),
    "rmse": ("RMSE", 2),
    "r2": ("R²", 2),
    "r": ("r", 2),
    "mae_gain": ("MAE less than chance’s", 2),
    "gap_closed": ("Gap closed", 2),
}
FEATURE_ORDER = (
    "y_sem",
    "y_sem_knn",
    "y_sem_mlp",
    "y_sem + size",
    "y_sem + covariates",
    "y_sem - covariates",
    "y_sem harmonised",
    "mode_amounts",
    "tissue_amounts",
    "summary",
    "untrained",
    "supervised_encoder",
    "oracle",
    "measured_volumes",
    "size",
    "age_sex",
    "covariates",
    "site",
    "chance",
)
"""y_sem first, then what to hold it against, then other feature sets."""
FURTHER = (
    "accuracy",
    "mcc",
    "brier",
    "calibration_error",
    "effect_size",
    "calibration_slope",
    "calibration_intercept",
)
"""Metrics of a second table, so that the first fits a page."""
CALIBRATED = ("y_sem", "pca_latents", "measured_volumes")
"""Feature sets whose calibration is drawn."""
CALIBRATION_SUBJECTS = 20
"""Fewer than this many, in fifths by probability, show chance alone."""
FEW_SUBJECTS = 10
"""Below this many test subjects, cross-validation's figures head the report where it has more."""


def target_name(target: str) -> str:
    """Return how a label column is called in headings."""
    return target.removesuffix("_years").replace("_", " ").capitalize()


def probe_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return a table for each protocol and target, and the plots, or None."""
    probe = context.probe
    if probe is None:
        return None
    return {
        "protocols": [_protocol(name, probe, context.predictions, figures) for name in PROTOCOLS],
        "known": {name for sets in probe.test.values() for name in sets},
        "skipped": list(probe.skipped.values()),
        "remarks": list(probe.remarks.values()),
        "applied": probe.applied,
        "crossfit": probe.crossfit,
        "people": list(
            zip(
                what_people_show(cross_validated=False),
                what_people_show(cross_validated=True),
                strict=True,
            )
        ),
    }


def _verdict(metrics: FiguresOfSets, about: TargetResult, protocol: Protocol) -> dict[str, Any]:
    """Return why y_sem is not shown to beat chance, or which of its figures is."""
    doubt: str | None = "not read"
    if "y_sem" in metrics:
        doubt = chance_doubt(metrics["y_sem"], about, protocol)
    primary = "roc_auc" if about.kind == "classification" else "mae"
    return {"doubt": doubt, "shown": [] if doubt else [primary]}


def _compared(differences: FiguresOfSets, target: str) -> dict[str, list[tuple[str, Estimate]]]:
    """Return the rivals that y_sem is better than, worse than, and not shown to differ from."""
    groups: dict[str, list[tuple[str, Estimate]]] = {}
    for rival, figures in differences.items():
        for metric, figure in figures.items():
            name = feature_name(rival, target)
            groups.setdefault(verdict_of(metric, figure), []).append((name, figure))
    return groups


def _added(differences: FiguresOfSets, target: str) -> list[dict[str, Any]]:
    """Return what y_sem adds to feature sets that it was read beside, each with its verdict."""
    return [
        {
            "name": feature_name(name, target),
            "figure": figure,
            "digits": PROBE_COLUMNS[metric][1],
            "shown": verdict_of(metric, figure) == "better",
        }
        for name, figures in differences.items()
        for metric, figure in figures.items()
    ]


def _by_site(probe: ProbeMetrics, target: str) -> dict[str, Any] | None:
    """Return y_sem's figures within each site and where it is left out, or None."""
    found = probe.by_site.get(target)
    if found is None or not found.sites:
        return None
    rows = [(name, one.people, one.within, one.left_out) for name, one in found.sites.items()]
    people = next((one.subjects for one in found.left_out.values()), 0)
    if found.left_out:
        rows.append(("all, left out in turn", people, {}, found.left_out))
    present = {metric for *_, figures, left_out in rows for metric in (*figures, *left_out)}
    return {
        "column": found.column,
        "rows": rows,
        "columns": {k: v for k, v in PROBE_COLUMNS.items() if k in present},
    }


def _within(probe: ProbeMetrics, protocol: Protocol, target: str) -> dict[str, Any] | None:
    """Return the same figures within sources, or None where there are not several."""
    found = probe.within_sources.get(protocol, {}).get(target)
    if found is None:
        return None
    present = {metric for figures in found.figures.values() for metric in figures}
    return {
        "column": found.column,
        "people": found.people,
        "columns": {k: v for k, v in PROBE_COLUMNS.items() if k in present},
        "rows": [
            (name, feature_name(name, target), found.figures[name])
            for name in _ordered(found.figures)
        ],
        "compared": _compared(found.differences, target),
    }


def _ordered(sets: FiguresOfSets) -> list[str]:
    order = [name for name in FEATURE_ORDER if name in sets]
    return order + [name for name in sets if name not in order]


def _protocol(
    protocol: Protocol,
    probe: ProbeMetrics,
    predictions: pd.DataFrame | None,
    figures: FigureFolder,
) -> dict[str, Any]:
    targets = []
    for target, metrics in probe.figures(protocol).items():
        about = probe.targets[target]
        present = {metric for figures_of in metrics.values() for metric in figures_of}
        differences = probe.differences.get(protocol, {}).get(target, {})
        targets.append(
            {
                "name": target_name(target),
                "about": about,
                "sizes": about.sizes(protocol) or ProtocolSizes(),
                "unit": "years" if target.endswith("_years") else "",
                "columns": {
                    k: v for k, v in PROBE_COLUMNS.items() if k in present and k not in FURTHER
                },
                "further": {k: PROBE_COLUMNS[k] for k in FURTHER if k in present},
                "rows": [
                    (name, feature_name(name, target), metrics[name]) for name in _ordered(metrics)
                ],
                "compared": _compared(differences, target),
                "added": _added(probe.added.get(protocol, {}).get(target, {}), target),
                "within": _within(probe, protocol, target),
                "by_site": _by_site(probe, target) if protocol == "cv" else None,
                **_verdict(metrics, about, protocol),
            }
        )
    picture = calibration = None
    if predictions is not None and targets:
        chosen = predictions["protocol"].eq(protocol) & predictions["repeat"].eq(0)
        rows = predictions[chosen]
        if len(rows):
            picture = figures.plot(
                f"probes_{protocol}",
                lambda palette: roc_and_scatter(rows, probe.targets, palette),
            )
        enough = rows["subject_id"].nunique() >= CALIBRATION_SUBJECTS
        if enough and any(t["about"].kind == "classification" for t in targets):
            calibration = figures.plot(
                f"calibration_{protocol}",
                lambda palette: calibration_plot(
                    rows, probe.targets, CALIBRATED, FEATURE_NAMES, palette
                ),
            )
    return {
        "name": protocol,
        "targets": targets,
        "picture": picture,
        "calibration": calibration,
        "repeats": max((t["sizes"].repeats or 1 for t in targets), default=1),
    }
