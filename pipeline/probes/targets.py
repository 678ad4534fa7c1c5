"""What a probe is asked to read: a label column, its scans, and the features judged on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.probes.estimators import Head, Probe, chance_head, linear_head
from schemas.evaluation import ProbeParams
from schemas.metrics import MIN_SUBJECTS, Prediction

Floats = NDArray[np.float64]

DEFAULT_ORACLE = ProbeParams().oracle
MOST_FILLED = 0.2
"""Share of scans whose age or sex may be missing before the baseline of age and sex is left out."""


@dataclass(frozen=True, slots=True)
class Target:
    """One label column with the scans that carry it, and the feature sets judged on them."""

    name: str
    classes: tuple[str, str] | None
    truth: Floats
    table: pd.DataFrame
    features: dict[str, NDArray[np.floating]]
    params: ProbeParams
    heads: Mapping[str, Head] = field(default_factory=dict)
    """What reads a feature set, where it is not the linear layer."""

    @property
    def kind(self) -> Prediction:
        """Return which layer reads it."""
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
        found = np.unique(self.truth[rows])
        if len(found) < 2:
            only = self.classes[int(found[0])]
            return f"{self.name}: only {only} in {where}, so only its own share of hits is judged"
        reason = self.unfit_reason(rows, where)
        return None if reason is None else f"{reason} for ROC-AUC"

    def split_reason(self) -> str | None:
        """Return why a label that the split gives away cannot be judged, or None."""
        values = {
            str(split): np.unique(self.truth[self.rows_in((str(split),))])
            for split in self.table["split"].dropna().unique()
        }
        constant = all(len(found) == 1 for found in values.values())
        if not constant or len(np.unique(self.truth)) < 2:
            return None
        names = {s: self._name_of(float(found[0])) for s, found in sorted(values.items())}
        told = ", ".join(f"{split}: {value}" for split, value in names.items())
        return (
            f"{self.name}: the split gives the label away ({told}); make a split in which each"
            " part holds every class (`pipeline cohort` does, by diagnosis)"
        )

    def _name_of(self, value: float) -> str:
        return f"{value:g}" if self.classes is None else self.classes[int(value)]

    def fit(self, feature_set: str, rows: Rows) -> Probe:
        """Fit one probe on these rows alone."""
        head = chance_head if feature_set == "chance" else self.heads.get(feature_set, linear_head)
        features = self.features[feature_set][rows]
        return head(features, self.truth[rows], self.subjects[rows], self.kind, self.params)

    def size(self, rows: Rows) -> dict[str, Any]:
        """Return scans and subjects, for each class where there are classes."""
        groups = {"all": rows}
        if self.classes is not None:
            groups |= {c: rows[self.truth[rows] == k] for k, c in enumerate(self.classes)}
        return {
            name: {"scans": len(r), "subjects": len(np.unique(self.subjects[r]))}
            for name, r in groups.items()
        }


def make_target(
    name: str,
    classes: tuple[str, str] | None,
    features: dict[str, NDArray[np.floating]],
    table: pd.DataFrame,
    params: ProbeParams,
    skipped: dict[str, str],
    *,
    heads: Mapping[str, Head] | None = None,
) -> Target | None:
    """Return the target with its labelled scans, or None with the reason added to `skipped`."""
    if name not in table:
        known = ", ".join(str(column) for column in table.columns)
        skipped[name] = f"{name}: no such column in the manifest (it has {known})"
        return None
    if classes is None:
        truth = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    else:
        codes = {classes[0]: 0.0, classes[1]: 1.0}
        truth = _text(table[name]).map(codes).to_numpy(dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(truth))
    if not len(rows):
        expected = "a number" if classes is None else f"{classes[0]} or {classes[1]}"
        there = ", ".join(_text(table[name]).dropna().value_counts().index[:4].astype(str))
        key = "regression" if classes is None else "classification"
        skipped[name] = (
            f"{name}: no scan carries {expected} (it holds {there or 'nothing'}); set probe.{key}"
        )
        return None
    companions = {
        "age_sex": [c for c in ("age_years", "sex") if c != name],
        "oracle": list(params.oracle),
    }
    if params.oracle == DEFAULT_ORACLE and not {*DEFAULT_ORACLE} & {*table}:
        del companions["oracle"]  # real people: nobody asked for it
    features = {"chance": np.empty((len(table), 0)), **features}
    for feature_set, columns in companions.items():
        values = _covariates(table.iloc[rows], columns)
        if isinstance(values, str):
            skipped[f"{name}/{feature_set}"] = f"{name}, {feature_set}: {values}"
        elif values.shape[1]:
            features[feature_set] = np.empty((len(table), values.shape[1]))
            features[feature_set][rows] = values
    return Target(
        name,
        classes,
        truth[rows],
        table.iloc[rows].reset_index(drop=True),
        {feature_set: values[rows] for feature_set, values in features.items()},
        params,
        heads or {},
    )


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


def _covariates(table: pd.DataFrame, columns: list[str]) -> Floats | str:
    """Return the columns as numbers (sex: M is 1), or why they cannot be used.

    Where a few are missing, the mean of the training split stands for them.
    """
    values = []
    for column in columns:
        if column not in table:
            return f"no column {column}"
        if column == "sex":
            number = table[column].astype(object).map({"F": 0.0, "M": 1.0})
        else:
            number = pd.to_numeric(table[column], errors="coerce")
        missing = int(number.isna().sum())
        # Nobody is judged in the training split, so its mean tells nothing of who is.
        filled = number.fillna(number[table["split"] == "train"].mean())
        if missing > MOST_FILLED * len(table) or filled.isna().any():
            return f"{column} is missing for {missing} of {len(table)} scans"
        values.append(filled.to_numpy(dtype=np.float64))
    return np.stack(values, axis=1) if values else np.empty((len(table), 0))
