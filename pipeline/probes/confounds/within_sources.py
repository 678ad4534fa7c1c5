"""The same probes within sources: what is left where a label and the site go together.

If one site scanned the old and another the young, a feature that tells sites apart reads age. So
people are compared with those of their own source alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.auc_intervals import auc_difference, auc_interval
from pipeline.metrics.intervals import (
    mean_interval,
    paired_difference,
    refit_inflation,
    subject_shares,
)
from pipeline.probes.confounds.sites import site_column, site_names
from schemas.metrics import FEWEST_SUBJECTS, MIN_SUBJECTS, Prediction
from schemas.results import Figures, FiguresOfSets, WithinSources

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

FEWEST_SOURCES = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """Scans that were judged, and by what."""

    truth: Floats
    """(scan,)."""
    scores: Mapping[str, Floats]
    """Feature set to (repeat, scan)."""
    subjects: NDArray[np.str_]
    """(scan,)."""
    fold: Rows | None
    """(repeat, scan), of cross-validation."""

    def take(self, rows: Rows) -> "Judged":
        """Return these scans alone."""
        return Judged(
            self.truth[rows],
            {name: repeats[:, rows] for name, repeats in self.scores.items()},
            self.subjects[rows],
            None if self.fold is None else self.fold[:, rows],
        )


def within_sources(
    table: pd.DataFrame, judged: Judged, kind: Prediction, *, first: str
) -> WithinSources | None:
    """Return figures of people compared with those of their own source, pooled over sources.

    ROC-AUC of pairs from one source (and fold); MAE of deviations from the source's mean, score and
    truth alike, so that `chance` is the spread of truth within sources. Differences are `first`
    minus each rival, paired. Sources of fewer than FEWEST_SUBJECTS judged people, or MIN_SUBJECTS
    of a class, are left aside; None where fewer than two are left, or no column names sources.
    """
    column, named = site_column(table), site_names(table)
    if column is None:
        return None
    kept = [name for name in np.unique(named) if name and _is_enough(judged, named == name, kind)]
    if len(kept) < FEWEST_SOURCES:
        return None
    rows = np.flatnonzero(np.isin(named, kept))
    source = np.searchsorted(kept, named[rows])
    part = judged.take(rows)
    compare = _rankings if kind == "classification" else _errors
    figures, differences = compare(part, source, first)
    people = {name: len(np.unique(judged.subjects[named == name])) for name in kept}
    return WithinSources(column=column, people=people, figures=figures, differences=differences)


def within_one_source(judged: Judged, kind: Prediction) -> Figures:
    """Return y_sem's figures of people who are all of one source, compared with each other."""
    source = np.zeros(len(judged.truth), dtype=np.intp)
    compare = _rankings if kind == "classification" else _errors
    return compare(judged, source, "y_sem")[0].get("y_sem", {})


def _is_enough(judged: Judged, rows: NDArray[np.bool_], kind: Prediction) -> bool:
    truth, subjects = judged.truth[rows], judged.subjects[rows]
    if kind == "regression":
        return len(np.unique(subjects)) >= FEWEST_SUBJECTS and bool(np.ptp(truth) > 0)
    return all(len(np.unique(subjects[truth == label])) >= MIN_SUBJECTS for label in (0, 1))


def _rankings(judged: Judged, source: Rows, first: str) -> tuple[FiguresOfSets, FiguresOfSets]:
    """Return ROC-AUCs and their differences; compared are scans of one source and fold."""
    truth, subjects, refitted = judged.truth, judged.subjects, judged.fold is not None
    fold = source[None] if judged.fold is None else judged.fold * (source.max() + 1) + source
    fold = np.broadcast_to(fold, next(iter(judged.scores.values())).shape)
    figures = {
        name: {"roc_auc": auc_interval(truth, repeats, subjects, fold, refits=refitted)}
        for name, repeats in judged.scores.items()
    }
    figures = {name: f for name, f in figures.items() if np.isfinite(f["roc_auc"].value)}
    own = judged.scores.get(first)
    if own is None or first not in figures:
        return figures, {}
    differences = {
        name: {
            "roc_auc": auc_difference(
                truth, own, judged.scores[name], subjects, fold, refits=refitted
            )
        }
        for name in figures
        if name not in (first, "chance")
    }
    return figures, differences


def _errors(judged: Judged, source: Rows, first: str) -> tuple[FiguresOfSets, FiguresOfSets]:
    """Return MAEs of deviations from the source's mean, gains over chance, and differences."""
    subjects, share = judged.subjects, subject_shares(judged.subjects)
    inflation = 1.0
    if judged.fold is not None:
        inflation = refit_inflation(max(2, len(np.unique(judged.fold[0]))))
    truth = _deviation(judged.truth[None], source, share)
    errors = {
        name: np.abs(_deviation(repeats, source, share) - truth).mean(axis=0)
        for name, repeats in judged.scores.items()
    }
    figures: FiguresOfSets = {}
    for name, error in errors.items():
        figures[name] = {"mae": mean_interval(error, subjects, inflation=inflation, least=0)}
        if name != "chance" and "chance" in errors:
            gain = paired_difference(errors["chance"], error, subjects, inflation=inflation)
            figures[name]["mae_gain"] = gain
    differences: FiguresOfSets = {}
    if first in errors:
        for name in errors.keys() - {first, "chance"}:
            one = paired_difference(errors[first], errors[name], subjects, inflation=inflation)
            differences[name] = {"mae": one}
    return figures, {name: differences[name] for name in errors if name in differences}


def _deviation(values: Floats, source: Rows, share: Floats) -> Floats:
    """Return values (repeat, scan) minus the mean of their source, people alike."""
    deviation = np.array(values, dtype=np.float64)
    for number in np.unique(source):
        rows = source == number
        deviation[:, rows] -= np.average(deviation[:, rows], axis=1, weights=share[rows])[:, None]
    return deviation
