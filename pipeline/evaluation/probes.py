"""Linear probes: how much of a label a frozen representation carries, read out by one layer.

Two protocols, side by side:

`test`
    Fitted on the subjects of train and val, judged on the subjects of test. The networks learn
    from the images of train and are selected on the images of val; no network ever sees a label,
    so val serves the probes as further training subjects.
`cv`
    Grouped cross-validation over the subjects of val and test alone, whom no network was trained
    on; out-of-fold scores are pooled. More subjects, so tighter intervals in small cohorts; pooling
    makes it a little pessimistic, since each fold has its own intercept.

C and alpha are picked by inner cross-validation over subjects, within the fitting rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from pipeline.evaluation.bootstrap import Rows, bootstrap_intervals
from pipeline.evaluation.linear import LinearProbe, fit_chance, fit_linear, grouped_folds
from pipeline.evaluation.scores import classification_scores, regression_scores
from schemas.errors import ContractError
from schemas.params import ProbeParams

Floats = NDArray[np.float64]
Metrics = dict[str, dict[str, dict[str, dict[str, Any]]]]

FIT_SPLITS = ("train", "val")
UNSEEN_SPLITS = ("val", "test")
DIRECTION_FEATURES = "y_sem"
MIN_SUBJECTS = 2
"""Fewest subjects of a class (classification) or in all (regression) to fit on."""

PREDICTION_COLUMNS = (
    "scan_id",
    "subject_id",
    "target",
    "feature_set",
    "protocol",
    "split",
    "truth",
    "score",
)


@dataclass(frozen=True, slots=True)
class Direction:
    """A unit vector in standardised y_sem space; along it the target rises.

    n = (y_sem - mean) / std; n' = n + scale * sqrt(dim) * vector; y_sem' = n' * std + mean.
    """

    vector: Floats
    """(dim,), length 1."""
    mean: Floats
    """(dim,), of the fitting scans."""
    std: Floats
    """(dim,), of the fitting scans."""
    towards: str
    """What lies in its direction, for example `diagnosis:AD` or `age_years`."""


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """What the probes found."""

    metrics: Metrics
    """Protocol `test`: {target: {feature_set: {metric: Estimate as a dict}}}."""
    cv_metrics: Metrics
    """Protocol `cv`, same shape."""
    targets: dict[str, dict[str, Any]]
    """What each target is: kind, positive and negative class, scans and subjects a protocol."""
    skipped: dict[str, str]
    """`target`, `target/feature_set` or `target/cv` that could not be judged, and why."""
    predictions: pd.DataFrame
    """One row a scan, target, feature set and protocol: PREDICTION_COLUMNS."""
    directions: dict[str, Direction]
    """One a target, from the `test` protocol's probe on y_sem."""
    fits: dict[str, dict[str, LinearProbe]]
    """Protocol `test`: every fitted number. Depends on the rows of train and val alone."""

    def document(self) -> dict[str, Any]:
        """Return all but predictions, directions and fits as one JSON-able dict."""
        return {
            "test": self.metrics,
            "cv": self.cv_metrics,
            "targets": self.targets,
            "skipped": self.skipped,
        }


@dataclass(slots=True)
class _Target:
    """One label column, the rows that carry it, and the feature sets judged on them."""

    name: str
    classes: tuple[str, str] | None
    truth: Floats
    table: pd.DataFrame
    features: dict[str, NDArray[np.floating]]
    params: ProbeParams
    skipped: dict[str, str] = field(default_factory=dict)

    def rows_in(self, splits: tuple[str, ...]) -> Rows:
        return np.flatnonzero(self.table["split"].isin(splits).to_numpy())

    def subjects(self, rows: Rows) -> NDArray[Any]:
        return self.table["subject_id"].to_numpy(dtype=str)[rows]

    def unfit_reason(self, rows: Rows, where: str) -> str | None:
        """Return why no probe can be fitted on these rows, or None."""
        truth, subjects = self.truth[rows], self.subjects(rows)
        if self.classes is None:
            count = len(np.unique(subjects))
            if count < MIN_SUBJECTS:
                return f"{count} subjects with {self.name} in {where}, need {MIN_SUBJECTS}"
            return f"{self.name} is constant in {where}" if np.ptp(truth) == 0 else None
        for label, name in enumerate(self.classes):
            count = len(np.unique(subjects[truth == label]))
            if count < MIN_SUBJECTS:
                return f"{count} subjects of class {name} in {where}, need {MIN_SUBJECTS}"
        return None

    def fit(self, feature_set: str, rows: Rows) -> LinearProbe:
        x = self.features[feature_set][rows]
        kind = "regression" if self.classes is None else "classification"
        if feature_set == "chance":
            return fit_chance(self.truth[rows], kind)
        return fit_linear(
            x,
            self.truth[rows],
            self.subjects(rows),
            kind,
            folds=self.params.folds,
            seed=self.params.seed,
        )


def fit_probes(
    feature_sets: Mapping[str, NDArray[np.floating]], table: pd.DataFrame, params: ProbeParams
) -> ProbeResults:
    """Return metrics, predictions and directions of every target and feature set.

    Parameters
    ----------
    feature_sets
        Name to features (scan, dim). `y_sem` also gives the directions. Beside them are judged, on
        the same scans: `chance` (training prevalence, or training mean), `demographics` (age and
        sex, as far as they are not the target), and `oracle` (params.oracle, when every column is
        there).
    table
        Manifest rows aligned with the features: scan_id, subject_id, split and the label columns.
    params
        Targets, folds, bootstrap draws, seed.

    Raises
    ------
    ContractError
        If features and table disagree in length, or a feature is not finite.
    """
    features = _checked(feature_sets, table)
    # Folds and draws must not depend on the order in which a store happens to keep its rows.
    order = np.argsort(table["scan_id"].to_numpy(dtype=str), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    features = {name: values[order] for name, values in features.items()}
    results = ProbeResults({}, {}, {}, {}, pd.DataFrame(), {}, {})
    predictions: list[pd.DataFrame] = []
    wanted: list[tuple[str, tuple[str, str] | None]] = [
        *params.classification.items(),
        *((name, None) for name in params.regression),
    ]
    for name, classes in wanted:
        target = _make_target(name, classes, features, table, params)
        if isinstance(target, str):
            results.skipped[name] = target
            continue
        _judge_on_test(target, results, predictions)
        _judge_by_cv(target, results, predictions)
        results.skipped.update(target.skipped)
    columns = list(PREDICTION_COLUMNS)
    results.predictions[columns] = (
        pd.concat(predictions)[columns] if predictions else pd.DataFrame(columns=columns)
    )
    return results
