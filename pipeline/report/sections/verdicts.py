"""Figures in words: a difference better, worse, or not shown; a direction in doubt."""

from collections.abc import Mapping
from typing import Literal

from pipeline.metrics.verdicts import chance_doubt
from pipeline.runtime.progress import counted
from schemas.metrics import Estimate
from schemas.results import PROTOCOLS, ProbeMetrics

Verdict = Literal["better", "worse", "not shown"]

LESS_IS_BETTER = ("mae", "mse_brain")
"""Metrics of which less is better; of the others, more."""
SHORT_NAMES = {"ssim_brain": "SSIM", "mse_brain": "MSE", "mae": "MAE", "roc_auc": "ROC-AUC"}


def verdict_of(metric: str, difference: Estimate) -> Verdict:
    """Return what an interval of first minus second says of the first; holding 0, nothing."""
    if not difference.excludes(0):
        return "not shown"
    return "better" if (difference.value < 0) == (metric in LESS_IS_BETTER) else "worse"


def told(differences: Mapping[str, Estimate]) -> str:
    """Return one verdict where all metrics have the same, else that of each."""
    verdicts = {metric: verdict_of(metric, one) for metric, one in differences.items()}
    if len(set(verdicts.values())) == 1:
        return next(iter(verdicts.values()))
    each = (f"{SHORT_NAMES.get(metric, metric)} {verdict}" for metric, verdict in verdicts.items())
    return ", ".join(each)


def doubt_of(direction: str, probe: ProbeMetrics | None) -> str | None:
    """Return why a direction may mean nothing: its probe is not shown to beat chance.

    Judged where there are most subjects, by interval and permutation test together.
    """
    targets = {} if probe is None else probe.targets
    target = direction if direction in targets else direction.rpartition(":")[0]
    if probe is None or target not in targets:
        return None
    about = targets[target]
    metric = "roc_auc" if about.kind == "classification" else "mae"
    judged = {
        protocol: probe.figures(protocol)[target]["y_sem"]
        for protocol in PROTOCOLS
        if metric in probe.figures(protocol).get(target, {}).get("y_sem", {})
    }
    if not judged:
        return None
    protocol = max(judged, key=lambda name: judged[name][metric].subjects)
    doubt = chance_doubt(judged[protocol], about, protocol)
    if doubt is None:
        return None
    figure = judged[protocol][metric]
    return (
        f"The probe of {target} is not shown to beat chance ({SHORT_NAMES[metric]}"
        f" {printed(figure)}, {counted(figure.subjects, 'subject')}: {doubt}), so this direction"
        " may mean nothing."
    )


def printed(figure: Estimate) -> str:
    """Return a figure's value in a sentence."""
    return "too few to print" if figure.interval_method == "few" else f"{figure.value:.2f}"
