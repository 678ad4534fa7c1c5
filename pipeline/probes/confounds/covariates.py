"""What a label may be read from instead of the brain: age, sex, site, covariates of the study."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.probes.confounds.harmonise import HARMONISED, harmonised_head, site_codes
from pipeline.probes.confounds.sites import SITE, UNKNOWN, site_names
from pipeline.probes.estimators import Head, LabelledFeatures, Probe, code_head
from pipeline.probes.linear import subject_weight
from pipeline.probes.size_features import fit_beside
from schemas.evaluation import ProbeParams
from schemas.manifest import SITE_COLUMNS

Floats = NDArray[np.float64]

COVARIATES = "covariates"
WITH_COVARIATES = "y_sem + covariates"
WITHOUT_COVARIATES = "y_sem - covariates"
MOST_FILLED = 0.2
"""Share of scans whose covariate may be missing before a baseline is left out."""
GIVEN_AWAY = 0.999
"""Share of a target's variance from which on a covariate is the target itself by another name."""


@dataclass(slots=True)
class ConfoundSets:
    """Feature sets of a target that hold no image, or y_sem beside them."""

    features: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    """(scan, dim) each, of the labelled scans."""
    heads: dict[str, Head] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """`target/<feature set>` and why."""


def confound_sets(
    name: str,
    truth: Floats,
    table: pd.DataFrame,
    y_sem: NDArray[np.floating] | None,
    params: ProbeParams,
) -> ConfoundSets:
    """Return site and covariates of the labelled scans (rows of `table`), alone and with y_sem.

    A site, or a word of a covariate, is a column of 0 and 1. One that no fitting scan has is a
    constant column in the fit, weighs nothing, and is read as none of the others.
    """
    found = ConfoundSets()
    sites = site_names(table)
    named = np.unique(sites[sites != UNKNOWN])
    if name not in SITE_COLUMNS and len(named) > 1:
        if (sites == UNKNOWN).mean() > MOST_FILLED:
            missing = int((sites == UNKNOWN).sum())
            found.left_out[f"{name}/{SITE}"] = (
                f"{name}, {SITE}: missing for {missing} of {len(table)} scans"
            )
        else:
            found.features[SITE] = indicators(sites)
    if y_sem is not None and params.harmonise != "none":
        _add_harmonised(found, name, table, y_sem, params)
    kept = []
    for column in params.covariates:
        if column == name:
            continue
        problem = covariate_problem(table, column) or _gives_away(name, truth, table, column)
        if problem is None:
            kept.append(column)
        else:
            found.left_out[f"{name}/{COVARIATES}/{column}"] = f"{name}, {COVARIATES}: {problem}"
    if not kept:
        return found
    values = np.hstack([covariate(table, column) for column in kept])
    found.features[COVARIATES] = values
    if y_sem is None:
        return found
    beside, numbers = np.hstack([y_sem, values]), values.shape[1]
    found.features[WITH_COVARIATES] = beside
    found.heads[WITH_COVARIATES] = partial(fit_beside, numbers=numbers)
    if params.residualise:
        found.features[WITHOUT_COVARIATES] = beside
        found.heads[WITHOUT_COVARIATES] = partial(residual_head, numbers=numbers)
    return found


def _add_harmonised(
    found: ConfoundSets,
    name: str,
    table: pd.DataFrame,
    y_sem: NDArray[np.floating],
    params: ProbeParams,
) -> None:
    """Add y_sem beside the covariates to be kept and the site, or why it cannot be."""
    assert params.harmonise != "none"
    keep = [column for column in params.harmonise_keep if column != name]
    problem = numbers_problem(table, keep)
    if SITE not in found.features:
        problem = "no two sites in the manifest (columns " + ", ".join(SITE_COLUMNS) + ")"
    if problem is not None:
        found.left_out[f"{name}/{HARMONISED}"] = f"{name}, {HARMONISED}: {problem}"
        return
    values = filled_numbers(table, keep) if keep else np.empty((len(table), 0))
    found.features[HARMONISED] = np.hstack([y_sem, values, site_codes(table)])
    found.heads[HARMONISED] = partial(harmonised_head, dim=y_sem.shape[1], method=params.harmonise)


def numbers_problem(table: pd.DataFrame, columns: Sequence[str]) -> str | None:
    """Return why these columns are no numbers to read a label from, or None."""
    for column in columns:
        if column not in table:
            return f"no column {column}"
        problem = _missing(column, as_numbers(table, column), table)
        if problem is not None:
            return problem
    return None


def filled_numbers(table: pd.DataFrame, columns: Sequence[str]) -> Floats:
    """Return columns for which `numbers_problem` is None as numbers (scan, column), filled."""
    return np.stack([_filled(as_numbers(table, column), table) for column in columns], axis=1)


def covariate_problem(table: pd.DataFrame, column: str) -> str | None:
    """Return why a column, of numbers or of words, is no covariate, or None."""
    if column not in table:
        return f"no column {column} in the manifest"
    if _holds_numbers(table, column):
        problem = _missing(column, as_numbers(table, column), table)
    else:
        problem = _missing(column, table[column].notna().astype(float).replace(0, np.nan), table)
        words, people = table[column].nunique(), table["subject_id"].nunique()
        if problem is None and words > people / 2:
            problem = f"{column} holds {words} different words for {people} people"
    if problem is None and table[column].nunique() < 2:
        problem = f"{column} is the same for all scans"
    return problem


def covariate(table: pd.DataFrame, column: str) -> Floats:
    """Return a column for which `covariate_problem` is None, (scan, 1), or a column for each word.

    For missing numbers stands the mean of the training split; missing words are no word.
    """
    if _holds_numbers(table, column):
        return filled_numbers(table, [column])
    words = table[column].astype(object).where(table[column].notna(), UNKNOWN)
    return indicators(words.astype(str).to_numpy(dtype=str))


def indicators(names: NDArray[np.str_]) -> Floats:
    """Return a column of 0 and 1 for each name but UNKNOWN, (scan, name)."""
    known = np.unique(names[names != UNKNOWN])
    return np.asarray(names[:, None] == known[None], dtype=np.float64)


def as_numbers(table: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Return a column as numbers (sex: M is 1), NaN where there is none."""
    if column == "sex":
        return table[column].astype(object).map({"F": 0.0, "M": 1.0})
    return pd.to_numeric(table[column], errors="coerce")


def _holds_numbers(table: pd.DataFrame, column: str) -> bool:
    return bool(as_numbers(table, column).notna().sum() == table[column].notna().sum()) or (
        column == "sex"
    )


def _filled(number: "pd.Series[float]", table: pd.DataFrame) -> Floats:
    # Nobody is judged in the training split, so its mean tells nothing of who is.
    filled = number.fillna(number[table["split"] == "train"].mean())
    return np.asarray(filled.to_numpy(dtype=np.float64))


def _missing(column: str, number: "pd.Series[float]", table: pd.DataFrame) -> str | None:
    missing = int(number.isna().sum())
    if missing > MOST_FILLED * len(table) or np.isnan(_filled(number, table)).any():
        return f"{column} is missing for {missing} of {len(table)} scans"
    return None


def _gives_away(name: str, truth: Floats, table: pd.DataFrame, column: str) -> str | None:
    """Return a line where the target follows from the covariate without error, or None."""
    values = covariate(table, column)
    design = np.hstack([np.ones((len(values), 1)), values - values.mean(axis=0)])
    error = truth - design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    spread = np.square(truth - truth.mean()).sum()
    if spread == 0 or np.square(error).sum() > (1 - GIVEN_AWAY) * spread:
        return None
    return f"{name} follows from {column} without error, so {column} is left out"


@dataclass(frozen=True, slots=True)
class ResidualProbe:
    """A probe on features that covariates no longer predict."""

    coef: Floats
    """(1 + covariate, dim): the features expected from intercept and covariates."""
    probe: Probe

    def score(self, features: NDArray[np.floating]) -> Floats:
        """Return the score of features with covariates in their last columns."""
        return self.probe.score(residuals(features, self.coef))

    def numbers(self) -> list[Floats]:
        """Return every fitted number."""
        return [self.coef, *self.probe.numbers()]


def residual_head(data: LabelledFeatures, params: ProbeParams, *, numbers: int) -> ResidualProbe:
    """Fit a layer on what is left of the features after regression on the last `numbers` columns.

    The regression is fitted on these scans alone, subjects alike; others are judged by it. A
    covariate that is constant here, such as a site without scans, takes nothing away.
    """
    x = data.doubles
    weight = np.sqrt(subject_weight(data.subjects))[:, None]
    design = _with_intercept(x[:, -numbers:])
    solved = np.linalg.lstsq(weight * design, weight * x[:, :-numbers], rcond=None)[0]
    coef = np.asarray(solved, dtype=np.float64)
    left = replace(data, features=residuals(x, coef))
    return ResidualProbe(coef, code_head(left, params))


def residuals(features: NDArray[np.floating], coef: Floats) -> Floats:
    """Return features (scan, dim) without what covariates, their last columns, predict."""
    x, count = np.asarray(features, dtype=np.float64), len(coef) - 1
    left: Floats = x[:, :-count] - _with_intercept(x[:, -count:]) @ coef
    return left


def _with_intercept(values: Floats) -> Floats:
    return np.hstack([np.ones((len(values), 1)), values])
