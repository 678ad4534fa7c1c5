"""Brain age: the age that a scan looks, by fits without its person, and its gap to the real age.

Folds of people take turns: one is judged, the next one calibrates, the rest are fitted on. The
calibrating people, whom the fit has not seen either, give

- the correction of the bias by which old brains look too young and young ones too old: a line of
  predicted on real age is taken out (de Lange and Cole 2020, NeuroImage: Clinical 26). It uses the
  real age, so that errors of corrected predictions say nothing (Butler et al. 2021, Human Brain
  Mapping 42); the error that is reported is that of uncorrected ones;
- the split-conformal interval (Papadopoulos et al. 2002; Lei et al. 2018, JASA 113): predicted age
  plus and minus a quantile of their absolute errors, one scan a person, so that it holds the real
  age of a new person like them with probability LEVEL, whatever the distribution.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.intervals import mean_interval, refit_inflation, share_interval
from pipeline.probes.estimators import LabelledFeatures, code_head
from pipeline.probes.linear import fit_chance, grouped_folds, many_fits
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.metrics import FEWEST_SUBJECTS
from schemas.results import AgeBias, BrainAgeMetrics

Floats = NDArray[np.float64]

LEVEL = 0.90
FEWEST_FOLDS = 3
COLUMNS = (
    "scan_id",
    "subject_id",
    "age",
    "predicted",
    "corrected",
    "gap",
    "low",
    "high",
    "out_of_range",
    "site",
)
"""Columns of brain_age.csv, one row a scan; then `sex` and `diagnosis` where they are known."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What people outside a fit tell of its predictions."""

    intercept: float
    slope: float
    """Of predicted on real age (years)."""
    quantile: float
    """Half-width of the interval (years); NaN where the people are too few."""

    def corrected(self, predicted: Floats, age: Floats) -> Floats:
        """Return predictions (scan,) from which the bias of ages (scan,) is taken out."""
        return predicted + age - (self.intercept + self.slope * age)


def calibrate(predicted: Floats, age: Floats, level: float = LEVEL) -> Calibration:
    """Return what one scan each of calibrating people (person,) tells."""
    slope, intercept = np.polyfit(age, predicted, 1) if np.ptp(age) else (1.0, 0.0)
    return Calibration(float(intercept), float(slope), conformal(np.abs(predicted - age), level))


def conformal(errors: Floats, level: float = LEVEL) -> float:
    """Return the error that a new one stays below with probability `level`; NaN if unknown.

    The ceil((n + 1) level)-th smallest of n; fewer than level / (1 - level) errors tell nothing.
    """
    rank = ceil(round((len(errors) + 1) * level, 9))
    return float(np.sort(errors)[rank - 1]) if rank <= len(errors) else float("nan")


def brain_age(
    features: NDArray[np.floating],
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    reference: tuple[str, str] | None = None,
    site: str = "site",
    crossfit: bool = False,
) -> tuple[BrainAgeMetrics, pd.DataFrame]:
    """Return figures, and a row a scan with a known age (COLUMNS).

    Parameters
    ----------
    features
        Numbers of each scan of the manifest's rows `table`, (scan, dim).
    params
        `folds`, `inner_folds` and `seed` are used.
    reference
        Column and value of the people to learn from, such as ("diagnosis", "CN"); default:
        everybody. The others are judged by fits of their fold.
    site
        Column that becomes `site`, if there is one.
    crossfit
        The features are by networks that never saw the person.

    Raises
    ------
    ContractError
        If too few people have an age, or the reference is not in the table.
    """
    age = pd.to_numeric(table["age_years"], errors="coerce").to_numpy(dtype=np.float64)
    known = np.isfinite(age)
    x, age = np.asarray(features, dtype=np.float64)[known], age[known]
    table = table[known].reset_index(drop=True)
    of_reference = _reference(table, reference)
    person = table["subject_id"].to_numpy(dtype=str)
    fold = _folds(person, of_reference, params)
    judged = pd.DataFrame({"scan_id": table["scan_id"], "subject_id": person, "age": age})
    predicted, corrected, half, chance = (np.full(len(age), np.nan) for _ in range(4))
    outside = np.zeros(len(age), dtype=bool)
    folds = int(fold.max()) + 1
    with many_fits(x.size):
        for turn in range(folds):
            rows = np.flatnonzero(fold == turn)
            aside = np.flatnonzero((fold == (turn + 1) % folds) & of_reference)
            fit = np.flatnonzero((fold != turn) & (fold != (turn + 1) % folds) & of_reference)
            labelled = LabelledFeatures(x[fit], age[fit], person[fit], "regression")
            probe = code_head(labelled, params)
            aside = _one_scan_each(aside, person, params.seed)
            calibration = calibrate(probe.score(x[aside]), age[aside])
            predicted[rows] = probe.score(x[rows])
            corrected[rows] = calibration.corrected(predicted[rows], age[rows])
            half[rows] = calibration.quantile
            outside[rows] = (age[rows] < age[fit].min()) | (age[rows] > age[fit].max())
            guess = fit_chance(age[fit], "regression", person[fit])
            chance[rows] = guess.intercept
    judged = judged.assign(
        predicted=predicted,
        corrected=corrected,
        gap=corrected - age,
        low=predicted - half,
        high=predicted + half,
        out_of_range=outside,
        site=table.get(site, ""),
    )
    for name in ("sex", "diagnosis"):
        if name in table:
            judged[name] = table[name]
    metrics = _metrics(judged, table, of_reference, chance, folds)
    metrics.reference = None if reference is None else ":".join(reference)
    metrics.crossfit = crossfit
    if len(known) > len(age):
        metrics.remarks.append(f"{len(known) - len(age)} of {len(known)} scans carry no age")
    return metrics, judged


def _reference(table: pd.DataFrame, reference: tuple[str, str] | None) -> NDArray[np.bool_]:
    if reference is None:
        return np.ones(len(table), dtype=bool)
    column, value = reference
    there = set() if column not in table else set(table[column].dropna().astype(str))
    if value not in there:
        known = ", ".join(sorted(there)[:5]) or "no such column"
        raise ContractError(f"--reference {column}:{value}: nobody with an age ({known})")
    return np.asarray((table[column].astype(str) == value).to_numpy(), dtype=bool)


def _folds(
    person: NDArray[np.str_], of_reference: NDArray[np.bool_], params: ProbeParams
) -> NDArray[np.intp]:
    """Return the fold of each scan; people of the reference are spread evenly, all get one."""
    reference = np.flatnonzero(of_reference)
    people = len(np.unique(person[reference]))
    folds = max(FEWEST_FOLDS, params.folds)
    if people < 3 * folds:
        raise ContractError(
            f"brain age: {people} people to learn from, expected at least {3 * folds}: three in"
            f" each of {folds} folds"
        )
    fold = np.full(len(person), -1, dtype=np.intp)
    whose: list[NDArray[np.intp]] = [reference, np.flatnonzero(~np.isin(person, person[reference]))]
    for rows in whose:
        if len(np.unique(person[rows])) < 2:
            fold[rows] = 0
            continue
        parts = grouped_folds(
            np.zeros(len(rows)), person[rows], "regression", folds=folds, seed=params.seed
        )
        for turn, (_, held_out) in enumerate(parts):
            fold[rows[held_out]] = turn
    # Scans of people who are in the reference at another visit go with their person.
    of_person = dict(zip(person[fold >= 0], fold[fold >= 0], strict=True))
    return np.array([of_person[name] for name in person], dtype=np.intp)


def _one_scan_each(rows: NDArray[np.intp], person: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    """Return one scan a person, drawn: visits of one person are not exchangeable with others'."""
    drawn = np.random.default_rng(seed).permutation(rows)
    _, first = np.unique(person[drawn], return_index=True)
    return np.sort(drawn[first])


def _metrics(
    judged: pd.DataFrame,
    table: pd.DataFrame,
    of_reference: NDArray[np.bool_],
    chance: Floats,
    folds: int,
) -> BrainAgeMetrics:
    ours = judged[of_reference]
    age, predicted = ours["age"].to_numpy(), ours["predicted"].to_numpy()
    person = ours["subject_id"].to_numpy(dtype=str)
    inflation = refit_inflation(folds)
    with_interval = np.isfinite(ours["low"].to_numpy())
    without = int(judged["low"].isna().sum())
    metrics = BrainAgeMetrics(
        scans=len(judged),
        people=judged["subject_id"].nunique(),
        training_people=table["subject_id"][table["split"] == "train"].nunique(),
        crossfit=False,
        reference_people=len(np.unique(person)),
        folds=folds,
        error=mean_interval(np.abs(predicted - age), person, inflation=inflation, least=0),
        chance=mean_interval(np.abs(chance[of_reference] - age), person).value,
        level=LEVEL,
        before=_bias(predicted - age, age, person),
        after=_bias(ours["gap"].to_numpy(), age, person),
        out_of_range=int(judged["out_of_range"].sum()),
    )
    if with_interval.any():
        held = (ours["low"] <= ours["age"]) & (ours["age"] <= ours["high"])
        kept = held.to_numpy(dtype=float)[with_interval]
        metrics.coverage = share_interval(kept, person[with_interval], inflation=inflation)
        metrics.half_width = float((ours["high"] - ours["predicted"]).median())
    if without:
        needed = ceil(LEVEL / (1 - LEVEL) - 1e-9)
        metrics.remarks.append(
            f"{without} of {len(judged)} scans have no interval: at {100 * LEVEL:.0f} % it needs"
            f" {needed} calibrating people in each fold"
        )
    if "diagnosis" in judged:
        metrics.by = "diagnosis"
        for name, group in judged.groupby("diagnosis"):
            if group["subject_id"].nunique() >= FEWEST_SUBJECTS:
                metrics.gap[str(name)] = mean_interval(group["gap"], group["subject_id"])
    return metrics


def _bias(gap: Floats, age: Floats, person: NDArray[np.str_]) -> AgeBias | None:
    """Return how the gap goes with age over the means of people."""
    means = pd.DataFrame({"gap": gap, "age": age}).groupby(person).mean()
    if means["age"].nunique() < 3 or means["gap"].nunique() < 2:
        return None
    r = float(np.corrcoef(means["age"], means["gap"])[0, 1])
    return AgeBias(r=r, slope=float(np.polyfit(means["age"], means["gap"], 1)[0]))
