"""Targets of probes: a label column, the scans that carry it, and the features read for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.probes.confounds.covariates import confound_sets, filled_numbers, numbers_problem
from pipeline.probes.confounds.harmonise import HARMONISED, site_trouble
from pipeline.probes.estimators import (
    Head,
    LabelledFeatures,
    Probe,
    chance_head,
    linear_head,
)
from schemas.evaluation import ProbeParams
from schemas.metrics import MIN_SUBJECTS, Prediction
from schemas.results import Counts

Floats = NDArray[np.float64]

DIRECTION_FEATURES = "y_sem"
"""The feature set whose probe gives a direction, and that all others are compared with."""
DEFAULT_ORACLE = ProbeParams().oracle


@dataclass(frozen=True, slots=True)
class Target:
    """One label column with the scans that carry it, and the feature sets judged on them."""

    name: str
    classes: tuple[str, str] | None
    truth: Floats
    table: pd.DataFrame
    features: Mapping[str, NDArray[np.floating]]
    params: ProbeParams
    heads: Mapping[str, Head] = field(default_factory=dict)
    """The heads of feature sets that are not read by the linear layer."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """`target/<feature set>` of baselines that cannot be had for these scans, and why."""

    @property
    def kind(self) -> Prediction:
        """Return whether a class or a number is predicted."""
        return "regression" if self.classes is None else "classification"

    @property
    def subjects(self) -> NDArray[Any]:
        """Return the subject of each scan."""
        return self.table["subject_id"].to_numpy(dtype=str)

    def rows_in(self, splits: tuple[str, ...]) -> Rows:
        """Return the scans of these splits."""
        return np.flatnonzero(self.table["split"].isin(splits).to_numpy())

    def unfit_reason(self, rows: Rows, where: str) -> str | None:
        """Return why no probe can be fitted on these rows, or None."""
        truth, subjects = self.truth[rows], self.subjects[rows]
        need = f"in {where}; at least {MIN_SUBJECTS} are needed"
        if self.classes is None:
            count = len(np.unique(subjects))
            if count < MIN_SUBJECTS:
                return f"{self.name}: {count} labelled subject(s) {need}"
            return f"{self.name}: constant in {where}" if np.ptp(truth) == 0 else None
        for label, name in enumerate(self.classes):
            count = len(np.unique(subjects[truth == label]))
            if count < MIN_SUBJECTS:
                return f"{self.name}: {count} subject(s) of class {name} {need}"
        return None

    def unranked_reason(self, rows: Rows, where: str) -> str | None:
        """Return why classes cannot be ranked on these rows: one alone is first or last."""
        if self.classes is None:
            return None
        labels = np.unique(self.truth[rows])
        if len(labels) < 2:
            only = self.classes[int(labels[0])]
            return f"{self.name}: only {only} in {where}, so only its own share of hits is judged"
        reason = self.unfit_reason(rows, where)
        return None if reason is None else f"{reason} for ROC-AUC"

    def split_reason(self) -> str | None:
        """Return why a label that the split gives away cannot be judged, or None."""
        values = {
            str(split): np.unique(self.truth[self.rows_in((str(split),))])
            for split in self.table["split"].dropna().unique()
        }
        constant = all(len(labels) == 1 for labels in values.values())
        if not constant or len(np.unique(self.truth)) < 2:
            return None
        names = {s: self._name_of(float(labels[0])) for s, labels in sorted(values.items())}
        told = ", ".join(f"{split}: {value}" for split, value in names.items())
        return (
            f"{self.name}: the split gives the label away ({told}); make a split in which each"
            " part holds every class (`pipeline cohort` does, by diagnosis)"
        )

    def _name_of(self, value: float) -> str:
        return f"{value:g}" if self.classes is None else self.classes[int(value)]

    def fit(self, feature_set: str, rows: Rows) -> Probe:
        """Fit one probe on these rows alone."""
        rows = rows[self._known(feature_set)[rows]]
        head = chance_head if feature_set == "chance" else self.heads.get(feature_set, linear_head)
        return head(self.labelled(feature_set).take(rows), self.params)

    def score(self, probe: Probe, feature_set: str, rows: Rows) -> Floats:
        """Return a probe's scores of these rows, NaN where a rival lacks the scan."""
        known, features = self._known(feature_set)[rows], self.features[feature_set][rows]
        if known.all():
            return probe.score(features)
        score = np.full(len(rows), np.nan)
        if known.any():
            score[known] = probe.score(features[known])
        return score

    def readable(
        self, names: list[str], splits: list[tuple[Rows, Rows]]
    ) -> tuple[list[str], dict[str, str]]:
        """Return the feature sets that can be read in these splits, and lines on all others.

        `splits` are (fitting rows, judged rows). Rivals may lack scans; what is harmonised may lack
        sites, of which there is a line also where it can be read.
        """
        kept: list[str] = []
        lines: dict[str, str] = {}
        for name in names:
            known = self._known(name)
            where = f"the scans of {name}"
            reasons = (self.unfit_reason(fit[known[fit]], where) for fit, _ in splits)
            reason = None if known.all() else next(filter(None, reasons), None)
            line = None if reason is None else f"{reason}, so it is not read"
            usable = reason is None
            if name == HARMONISED:
                line, usable = site_trouble(self.table, splits, self.params.harmonise_unseen)
                line = None if line is None else f"{self.name}, {name}: {line}"
            kept += [name] if usable else []
            lines |= {} if line is None else {f"{self.name}/{name}": line}
        return kept, lines

    def _known(self, feature_set: str) -> NDArray[np.bool_]:
        """Return which scans (scan,) a feature set holds numbers of."""
        known: NDArray[np.bool_] = np.isfinite(self.features[feature_set]).all(axis=1)
        return known

    def labelled(self, feature_set: str) -> LabelledFeatures:
        """Return a feature set with the labels to be read from it."""
        return LabelledFeatures(self.features[feature_set], self.truth, self.subjects, self.kind)

    def size(self, rows: Rows) -> dict[str, Counts]:
        """Return scans and subjects, for each class where there are classes."""
        groups = {"all": rows}
        if self.classes is not None:
            groups |= {c: rows[self.truth[rows] == k] for k, c in enumerate(self.classes)}
        return {
            name: Counts(scans=len(r), subjects=len(np.unique(self.subjects[r])))
            for name, r in groups.items()
        }


def problem_of(name: str, classes: tuple[str, str] | None, table: pd.DataFrame) -> str | None:
    """Return why a label column is no target, or None where scans carry it."""
    if name not in table:
        known = ", ".join(str(column) for column in table.columns)
        return f"{name}: no such column in the manifest (it has {known})"
    if np.isfinite(_truth(name, classes, table)).any():
        return None
    expected = "a number" if classes is None else f"{classes[0]} or {classes[1]}"
    there = ", ".join(_text(table[name]).dropna().value_counts().index[:4].astype(str))
    key = "regression" if classes is None else "classification"
    return f"{name}: no scan carries {expected} (it holds {there or 'nothing'}); set probe.{key}"


def make_target(
    name: str,
    classes: tuple[str, str] | None,
    features: Mapping[str, NDArray[np.floating]],
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    heads: Mapping[str, Head] | None = None,
) -> Target:
    """Return a target for which `problem_of` is None, with its labelled scans and baselines."""
    truth = _truth(name, classes, table)
    rows = np.flatnonzero(np.isfinite(truth))
    labelled = table.iloc[rows].reset_index(drop=True)
    baselines = {
        "age_sex": [c for c in ("age_years", "sex") if c != name],
        "oracle": list(params.oracle),
    }
    if params.oracle == DEFAULT_ORACLE and not {*DEFAULT_ORACLE} & {*table}:
        del baselines["oracle"]  # real people: nobody asked for it
    sets: dict[str, NDArray[np.floating]] = {"chance": np.empty((len(rows), 0))}
    sets |= {feature_set: values[rows] for feature_set, values in features.items()}
    left_out = {}
    for feature_set, columns in baselines.items():
        problem = numbers_problem(labelled, columns)
        if problem is not None:
            left_out[f"{name}/{feature_set}"] = f"{name}, {feature_set}: {problem}"
        elif columns:
            sets[feature_set] = filled_numbers(labelled, columns)
    confounds = confound_sets(name, truth[rows], labelled, sets.get(DIRECTION_FEATURES), params)
    sets |= confounds.features
    left_out |= confounds.left_out
    all_heads = {**(heads or {}), **confounds.heads}
    return Target(name, classes, truth[rows], labelled, sets, params, all_heads, left_out)


def _truth(name: str, classes: tuple[str, str] | None, table: pd.DataFrame) -> Floats:
    """Return the label of each scan as a number (classes: 0 and 1), NaN where it has none."""
    if classes is None:
        numbers = pd.to_numeric(table[name], errors="coerce")
    else:
        numbers = _text(table[name]).map({classes[0]: 0.0, classes[1]: 1.0})
    return np.asarray(numbers.to_numpy(dtype=np.float64))


def _text(cells: pd.Series) -> pd.Series:
    """Return labels as classes are written: a 1 read as the number 1.0 is "1"."""
    return cells.astype(object).map(
        lambda cell: f"{cell:g}" if isinstance(cell, float) else cell, na_action="ignore"
    )


def unlabelled(
    name: str, classes: tuple[str, str] | None, table: pd.DataFrame, target: Target
) -> str | None:
    """Return a line on the scans that take no part in a target, or None where there is none."""
    left_out = len(table) - len(target.table)
    if not left_out:
        return None
    missing = int(table[name].isna().sum())
    others = ""
    if classes is not None:
        values = _text(table[name])
        counts = values[values.notna() & ~values.isin(classes)].value_counts()
        others = ", ".join(f"{count} {value}" for value, count in counts.head(3).items())
    parts = ", ".join(filter(None, [others, f"{missing} empty" if missing else ""]))
    expected = "a number" if classes is None else f"{classes[0]} or {classes[1]}"
    many = " (more than half!)" if left_out > len(table) / 2 else ""
    return (
        f"{name}: {left_out} of {len(table)} scans{many} carry no {expected}"
        f"{f' ({parts})' if parts else ''} and take no part"
    )
