"""A linear mixed model with an intercept for each person (statsmodels, extra `longitudinal`)."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from pipeline.metrics.intervals import NORMAL, estimate
from schemas.errors import ContractError, ParamsError
from schemas.results import MixedModel

FEWEST_PEOPLE = 20
"""Of fewer people with two visits, the normal intervals of fixed effects are too narrow: at ten, a
product of group and time that is not there is found in 8.5 % instead of 5 %."""
FEWEST_WITH_THREE = 10
"""Fewest people with three visits for a slope of each person."""


def fit_mixed_model(scans: pd.DataFrame, *, random_slopes: bool = False) -> MixedModel:
    """Return the fixed effects of value ~ years * group with a random intercept a person (REML).

    `scans` has subject_id, years, value and group, without gaps; with one group the formula is
    value ~ years. The value is scaled to a standard deviation of 1 for the fit, whose tolerances
    have units, and effects are scaled back.

    Raises
    ------
    ContractError
        If there are too few people, the value is constant, or the fit does not converge; with
        `random_slopes`, if fewer than FEWEST_WITH_THREE people have three visits: two visits
        cannot tell a person's slope from noise, and such fits converge without meaning.
    ParamsError
        If statsmodels is not installed.
    """
    visits = scans.groupby("subject_id")["years"].nunique()
    if random_slopes and (visits >= 3).sum() < FEWEST_WITH_THREE:
        raise ContractError(
            f"random slopes: {int((visits >= 3).sum())} people have three visits or more, expected"
            f" {FEWEST_WITH_THREE}; two visits cannot tell a slope from noise"
        )
    if (visits >= 2).sum() < FEWEST_PEOPLE:
        raise ContractError(
            f"mixed model: {int((visits >= 2).sum())} people have two visits or more, expected"
            f" {FEWEST_PEOPLE}"
        )
    scale = float(scans["value"].std())
    if not scale > 0:
        raise ContractError("mixed model: the value is constant")
    data = scans.assign(value=(scans["value"] - scans["value"].mean()) / scale)
    # Names are read by column, never by position; one group would make a singular design.
    groups = sorted(data["group"].astype(str).unique())
    formula = "value ~ years * C(group)" if len(groups) > 1 else "value ~ years"
    fitted = _fit(formula, data, "~years" if random_slopes else None)
    low, high = fitted.fe_params - NORMAL * fitted.bse_fe, fitted.fe_params + NORMAL * fitted.bse_fe
    effects = {}
    for name, value in fitted.fe_params.items():
        if "years" not in name:
            continue
        told = name if name == "years" else f"years: {name.split('[T.')[1].rstrip(']')}"
        ends = float(low[name]) * scale, float(high[name]) * scale
        effects[told] = estimate(float(value) * scale, *ends, len(visits), "wald")
    between = float(np.asarray(fitted.cov_re)[0, 0])
    return MixedModel(
        people=len(visits),
        scans=len(data),
        effects=effects,
        reference=groups[0] if len(groups) > 1 else None,
        person_share=between / (between + float(fitted.scale)),
    )


def _fit(formula: str, data: pd.DataFrame, slopes: str | None) -> Any:
    try:
        import statsmodels.formula.api as models
        from statsmodels.tools.sm_exceptions import ConvergenceWarning
    except ImportError as error:
        raise ParamsError(
            "mixed models need statsmodels: pip install 'ldae-pipeline[longitudinal]'"
        ) from error
    with warnings.catch_warnings():
        # A variance of people at 0 is an answer, told by person_share.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            fitted = models.mixedlm(formula, data, groups="subject_id", re_formula=slopes).fit()
        except np.linalg.LinAlgError as error:
            raise ContractError("mixed model: groups and years cannot be told apart") from error
    if not fitted.converged or not np.isfinite(fitted.bse_fe).all():
        raise ContractError("mixed model: the fit does not converge")
    return fitted
