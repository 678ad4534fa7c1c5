"""Verdicts on figures: whether a probe beats chance, and which of two methods is better.

One rule for report, headline and directions, so that interval and permutation test never tell
different things: both must leave chance out.
"""

from collections.abc import Mapping
from typing import Any, Literal

from schemas.metrics import FEWEST_SUBJECTS, FEWEST_TO_BEAT_CHANCE, Estimate, Prediction
from schemas.results import PermutationTest, Protocol, ProtocolSizes, TargetResult

SIGNIFICANT = 0.05
"""A permutation p below this leaves chance out."""


def chance_doubt(
    figures: Mapping[str, Estimate],
    target: TargetResult,
    protocol: Protocol,
    *,
    feature_set: Literal["y_sem", "site"] = "y_sem",
) -> str | None:
    """Return why a probe is not shown to beat chance, or None where it is.

    `figures` are those of the feature set; no others are tested on permuted labels. Needed are an
    interval that leaves chance out (of ROC-AUC 0.5; of the error, that of the median) and a
    permutation p below 0.05 (Holm's, where the target is not the primary one), and 6 subjects of
    each class.
    """
    sizes = target.sizes(protocol) or ProtocolSizes()
    test = sizes.permutation if feature_set == "y_sem" else sizes.site_permutation
    reasons = [
        _few(target, sizes),
        _interval_doubt(figures, target.kind),
        _permutation_doubt(test),
    ]
    return next(filter(None, reasons), None)


def _few(target: TargetResult, sizes: ProtocolSizes) -> str | None:
    for name in target.classes or ("all",):
        counts = (sizes.judged_on or {}).get(name)
        if counts is not None and counts.subjects < FEWEST_TO_BEAT_CHANCE:
            whose = "" if name == "all" else f" {name}"
            plural = "" if counts.subjects == 1 else "s"
            return f"only {counts.subjects}{whose} subject{plural} judged"
    return None


def _interval_doubt(figures: Mapping[str, Estimate], kind: Prediction) -> str | None:
    if kind == "classification":
        name, chance = "roc_auc", 0.5
    else:
        name, chance = ("mae_gain", 0.0) if "mae_gain" in figures else ("r2", 0.0)
    if name not in figures:
        return "not judged"
    interval = figures[name].interval
    if interval is None:
        return "no interval"
    return None if interval[0] > chance else "the interval holds chance"


def _permutation_doubt(test: PermutationTest | None) -> str | None:
    if test is None:
        return "not tested on permuted labels"
    p, name = (test.p, "p") if test.p_holm is None else (test.p_holm, "Holm’s p")
    return None if p < SIGNIFICANT else f"permuted labels do as well ({name} {p:.2g})"


def comparison(difference: Mapping[str, Any], *, more_is_better: bool) -> str:
    """Return whether the first method of a paired difference is better, worse, or neither."""
    figure = Estimate.model_validate(difference)
    if figure.subjects < FEWEST_SUBJECTS:
        return "too few subjects to tell"
    if not figure.excludes(0):
        return "no clear difference"
    return "better" if (figure.value > 0) == more_is_better else "worse"
