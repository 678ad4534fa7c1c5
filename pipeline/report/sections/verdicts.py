"""Paired differences in words: better, worse, or not shown either way."""

from collections.abc import Mapping
from typing import Literal

from schemas.metrics import Estimate

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
