"""The linear layer on y_sem: its numbers standardised, or with the spreads that they have."""

from typing import Any

from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.linear import LinearProbe, fit_linear, pick_strength
from schemas.evaluation import ProbeParams


def code_head(data: LabelledFeatures, params: ProbeParams) -> LinearProbe:
    """Fit a layer on codes (scan, dim), scaled as inner folds of the fitting scans prefer.

    Amounts of principal modes fall off in size. With their own spreads, the penalty spares the
    first ones, as ridge regression on whole images does; standardised, the last ones, which few
    people determine, count as much. Which is better depends on the label.
    """
    options: dict[str, Any] = {"folds": params.inner_folds, "seed": params.seed}
    about = (data.truth, data.subjects, data.kind)
    tried = []
    for scaled in (False, True):
        strength, score = pick_strength(data.doubles, *about, scaled=scaled, **options)
        tried.append((score, strength, scaled))
    _, strength, scaled = max(tried, key=lambda one: one[0])
    return fit_linear(data.features, *about, strength=strength, scaled=scaled, **options)
