"""The headline figures of a study, as lines of text."""

from pathlib import Path
from typing import Any

from pipeline.metrics.verdicts import chance_doubt
from pipeline.report.metrics_files import read_metrics
from pipeline.runtime.progress import counted
from schemas.metrics import Estimate
from schemas.results import PROTOCOLS, EvaluateMetrics, ProbeMetrics


def read_headline(*, evaluate: Path | None = None, probe: Path | None = None) -> list[str]:
    """Return the headline figures of a study, a line each; parts that were not run are left out."""
    lines = []
    metrics = read_metrics(evaluate and evaluate / "metrics.json", EvaluateMetrics)
    if metrics is not None:
        for method in ("ae", "ldae", "ldae_y_sem_only", "ldae_y_sem_mean", "mean_brain"):
            ssim = metrics.reconstruction.get(method, {}).get("ssim_brain")
            if ssim:
                people = counted(ssim.subjects, "subject")
                lines.append(f"SSIM inside the brain, {method}: {ssim} ({people})")
        health = metrics.inversion
        if health is not None:
            lines.append(
                f"inverted x_T: mean {health['mean']:.3f}, std {health['std']:.3f},"
                f" kurtosis {health['kurtosis']:.2f} (0, 1, 3 if Gaussian)"
            )
        lines += _identification_lines(metrics)
        lines += _application_lines(metrics)
    probes = read_metrics(probe and probe / "metrics.json", ProbeMetrics)
    return lines if probes is None else lines + _probe_lines(probes)


def _identification_lines(metrics: EvaluateMetrics) -> list[str]:
    found = metrics.identification
    if found is None:
        return []
    if found.skipped is not None:
        return [f"identification left out: {found.skipped}"]
    return [
        f"person found by {method} ({kind}): {figures['rank_1']}"
        f" ({counted(figures['rank_1'].subjects, 'subject')}; a guess: 1 in {found.people})"
        for kind, methods in found.kinds.items()
        for method, figures in methods.items()
    ]


def _application_lines(metrics: EvaluateMetrics) -> list[str]:
    lines = []
    manipulation = metrics.manipulation or {}
    for method, figures in manipulation.get("methods", {}).items():
        dose = figures["ventricle_ml"]
        lines.append(
            f"ventricles along {manipulation['direction']}, {method}: Spearman"
            f" {_interval(dose['spearman'])}{_people(dose['spearman'])}, rising in"
            f" {dose['rising']['value']:.0%} of subjects,"
            f" {dose['per_scale']['value']:+.2f} ml a step"
        )
    visits = (metrics.interpolation or {}).get("all", {}).get("scan", {})
    for method in ("ldae", "ldae_detail", "blend", "nearest"):
        if method in visits:
            mse, fluid = visits[method]["mse_brain"], visits[method]["ventricle_error_ml"]
            lines.append(
                f"middle visit, {method}: MSE {mse['value']:.5f}, ventricle error"
                f" {fluid['value']:.2f} ml{_people(mse)}"
            )
    parts = {
        "manipulation": metrics.manipulation,
        "interpolation": metrics.interpolation,
        "generation": metrics.generation,
    }
    lines += [
        f"{name} left out: {part['skipped']}"
        for name, part in parts.items()
        if part and "skipped" in part
    ]
    return lines


def _probe_lines(metrics: ProbeMetrics) -> list[str]:
    lines = []
    names = {"test": "test subjects", "cv": "val + test subjects, cross-validated"}
    if metrics.crossfit is not None:
        names["cv"] = f"subjects of all splits, cross-fitted in {metrics.crossfit.folds} folds"
    for protocol in PROTOCOLS:
        for target, sets in metrics.figures(protocol).items():
            for figure in ("roc_auc", "mae", "gap_closed"):
                estimates = {s: sets[s][figure] for s in sets if figure in sets[s]}
                compared = [s for s in ("y_sem", "oracle", "chance") if s in estimates]
                shown = [f"{s} {estimates[s]}" for s in compared]
                if "y_sem" in estimates:
                    people = estimates["y_sem"].subjects
                    if estimates["y_sem"].interval_method == "few":
                        shown = ["too few subjects of a class to print it"]
                    elif figure != "gap_closed":
                        doubt = chance_doubt(sets["y_sem"], metrics.targets[target], protocol)
                        shown += [f"y_sem not shown to beat chance ({doubt})"] if doubt else []
                    where = names[protocol]
                    lines.append(f"{target} {figure} ({people} {where}): {', '.join(shown)}")
    return lines + [f"not judged: {why}" for why in metrics.skipped.values()]


def _interval(estimate: dict[str, Any]) -> str:
    return str(Estimate.model_validate(estimate))


def _people(estimate: dict[str, Any]) -> str:
    return f" ({counted(estimate['subjects'], 'subject')})"
