"""The headline figures of a study, as lines of text."""

import json
from pathlib import Path
from typing import Any

from pipeline.metrics.verdicts import chance_doubt
from pipeline.runtime.progress import counted
from schemas.metrics import Estimate


def read_headline(*, evaluate: Path | None = None, probe: Path | None = None) -> list[str]:
    """Return the headline figures of a study, a line each; parts that were not run are left out."""
    lines = []
    if evaluate is not None and (evaluate / "metrics.json").is_file():
        metrics = json.loads((evaluate / "metrics.json").read_text())
        for method in ("ae", "ldae", "ldae_y_sem_only"):
            ssim = metrics["reconstruction"].get(method, {}).get("ssim_brain")
            if ssim:
                lines.append(f"SSIM inside the brain, {method}: {_interval(ssim)}{_people(ssim)}")
        health = metrics["inversion"]
        lines.append(
            f"inverted x_T: mean {health['mean']:.3f}, std {health['std']:.3f},"
            f" kurtosis {health['kurtosis']:.2f} (0, 1, 3 if Gaussian)"
        )
        lines += _application_lines(metrics)
    if probe is not None and (probe / "metrics.json").is_file():
        lines += _probe_lines(json.loads((probe / "metrics.json").read_text()))
    return lines


def _application_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    manipulation = metrics.get("manipulation", {})
    for method, figures in manipulation.get("methods", {}).items():
        dose = figures["ventricle_ml"]
        lines.append(
            f"ventricles along {manipulation['direction']}, {method}: Spearman"
            f" {_interval(dose['spearman'])}{_people(dose['spearman'])}, rising in"
            f" {dose['rising']['value']:.0%} of subjects,"
            f" {dose['per_scale']['value']:+.2f} ml a step"
        )
    visits = metrics.get("interpolation", {}).get("all", {}).get("scan", {})
    for method in ("ldae", "ldae_detail", "blend", "nearest"):
        if method in visits:
            mse, fluid = visits[method]["mse_brain"], visits[method]["ventricle_error_ml"]
            lines.append(
                f"middle visit, {method}: MSE {mse['value']:.5f}, ventricle error"
                f" {fluid['value']:.2f} ml{_people(mse)}"
            )
    parts = [part for part in ("manipulation", "interpolation", "generation") if part in metrics]
    lines += [
        f"{part} left out: {metrics[part]['skipped']}"
        for part in parts
        if "skipped" in metrics[part]
    ]
    return lines


def _probe_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    names = {"test": "test subjects", "cv": "val + test subjects, cross-validated"}
    for protocol, where in names.items():
        for target, sets in metrics.get(protocol, {}).items():
            for figure in ("roc_auc", "mae", "gap_closed"):
                estimates = {s: sets[s][figure] for s in sets if figure in sets[s]}
                beside = [s for s in ("y_sem", "oracle", "chance") if s in estimates]
                shown = [f"{s} {_interval(estimates[s])}" for s in beside]
                if "y_sem" in estimates:
                    people = estimates["y_sem"]["subjects"]
                    if estimates["y_sem"].get("interval_method") == "few":
                        shown = ["too few subjects of a class to print it"]
                    elif figure != "gap_closed":
                        about = metrics["targets"][target]
                        doubt = chance_doubt(sets["y_sem"], about, protocol)
                        shown += [f"y_sem not shown to beat chance ({doubt})"] if doubt else []
                    lines.append(f"{target} {figure} ({people} {where}): {', '.join(shown)}")
    return lines + [f"not judged: {why}" for why in metrics.get("skipped", {}).values()]


def _interval(estimate: dict[str, Any]) -> str:
    return str(Estimate.model_validate(estimate))


def _people(estimate: dict[str, Any]) -> str:
    return f" ({counted(estimate['subjects'], 'subject')})"
