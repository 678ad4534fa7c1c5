"""Verdicts on figures: whether a probe beats chance, and which of two methods is better.

One rule for report, headline and directions, so that interval and permutation test never tell
different things: both must leave chance out.
"""

from collections.abc import Mapping
from typing import Any

from schemas.metrics import FEWEST_SUBJECTS, FEWEST_TO_BEAT_CHANCE, Estimate

SIGNIFICANT = 0.05
"""A permutation p below this leaves chance out."""


def chance_doubt(figures: Mapping[str, Any], about: Mapping[str, Any], protocol: str) -> str | None:
    """Return why a probe is not shown to beat chance, or None where it is.

    `figures` is {metric: Estimate as a dict} of one feature set, `about` the target's entry in
    `targets`. Needed are an interval that leaves chance out (of ROC-AUC 0.5; of the error, that
    of the median) and a permutation p below 0.05 (Holm's, where the target is not the
    primary one), and 6 subjects of each class.
    """
    judged = about.get(protocol, {})
    reasons = [
        _few(about, judged),
        _interval_doubt(figures, str(about["kind"])),
        _permutation_doubt(judged),
    ]
    return next(filter(None, reasons), None)


def _few(about: Mapping[str, Any], judged: Mapping[str, Any]) -> str | None:
    sizes = judged.get("judged_on", {})
    names = [about[end] for end in ("negative", "positive") if end in about] or ["all"]
    for name in names:
        count = sizes.get(name, {}).get("subjects")
        if count is not None and count < FEWEST_TO_BEAT_CHANCE:
            whose = "" if name == "all" else f" {name}"
            return f"only {count}{whose} subject{'' if count == 1 else 's'} judged"
    return None


def _interval_doubt(figures: Mapping[str, Any], kind: str) -> str | None:
    if kind == "classification":
        name, chance = "roc_auc", 0.5
    else:
        name, chance = ("mae_gain", 0.0) if "mae_gain" in figures else ("r2", 0.0)
    if name not in figures:
        return "not judged"
    figure = Estimate.model_validate(figures[name])
    if figure.interval is None:
        return "no interval"
    return None if figure.interval[0] > chance else "the interval holds chance"


def _permutation_doubt(judged: Mapping[str, Any]) -> str | None:
    test = judged.get("permutation")
    if test is None:
        return "not tested on permuted labels"
    p, name = test.get("p_holm", test["p"]), "Holm’s p" if "p_holm" in test else "p"
    return None if p < SIGNIFICANT else f"permuted labels do as well ({name} {p:.2g})"


def comparison(difference: Mapping[str, Any], *, more_is_better: bool) -> str:
    """Return whether the first method of a paired difference is better, worse, or neither."""
    figure = Estimate.model_validate(difference)
    if figure.subjects < FEWEST_SUBJECTS:
        return "too few subjects to tell"
    if not figure.excludes(0):
        return "no clear difference"
    return "better" if (figure.value > 0) == more_is_better else "worse"
