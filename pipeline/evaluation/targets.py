"""What a probe is asked to read: a label column, its scans, and the features judged on them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import Rows
from pipeline.evaluation.linear import Kind, LinearProbe, fit_chance, fit_linear
from schemas.params import ProbeParams

Floats = NDArray[np.float64]

MIN_SUBJECTS = 2
"""Fewest subjects of each class (classification), or in all (regression), to fit on."""


@dataclass(frozen=True, slots=True)
class Target:
    """One label column with the scans that carry it, and the feature sets judged on them."""

    name: str
    classes: tuple[str, str] | None
    truth: Floats
    table: pd.DataFrame
    features: dict[str, NDArray[np.floating]]
    params: ProbeParams

    @property
    def kind(self) -> Kind:
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

    def fit(self, feature_set: str, rows: Rows) -> LinearProbe:
        """Fit one probe on these rows alone."""
        if feature_set == "chance":
            return fit_chance(self.truth[rows], self.kind)
        return fit_linear(
            self.features[feature_set][rows],
            self.truth[rows],
            self.subjects[rows],
            self.kind,
            folds=self.params.folds,
            seed=self.params.seed,
        )

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
) -> Target | None:
    """Return the target with its labelled scans, or None with the reason added to `skipped`."""
    if name not in table:
        skipped[name] = f"{name}: no such column in the manifest"
        return None
    if classes is None:
        truth = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    else:
        codes = {classes[0]: 0.0, classes[1]: 1.0}
        truth = table[name].astype(object).map(codes).to_numpy(dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(truth))
    if not len(rows):
        expected = "a number" if classes is None else f"{classes[0]} or {classes[1]}"
        skipped[name] = f"{name}: no scan carries {expected}"
        return None
    companions = {
        "age_sex": [c for c in ("age_years", "sex") if c != name],
        "oracle": list(params.oracle),
    }
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
    )


def _covariates(table: pd.DataFrame, columns: list[str]) -> Floats | str:
    """Return the columns as numbers (sex: M is 1), or why they cannot be used."""
    values = []
    for column in columns:
        if column not in table:
            return f"no column {column}"
        if column == "sex":
            number = table[column].astype(object).map({"F": 0.0, "M": 1.0})
        else:
            number = pd.to_numeric(table[column], errors="coerce")
        missing = int(number.isna().sum())
        if missing:
            return f"{column} is missing for {missing} of {len(table)} scans"
        values.append(number.to_numpy(dtype=np.float64))
    return np.stack(values, axis=1) if values else np.empty((len(table), 0))
