"""Linear probes: how much of a label a frozen representation carries, read out by one layer.

Two protocols, side by side:

`test`
    Fitted on the subjects of train and val, judged on the subjects of test. The networks learn
    from the images of train and are selected on the images of val; no network ever sees a label,
    so val serves the probes as further training subjects.
`cv`
    Grouped cross-validation over the subjects of val and test alone, whom no network was trained
    on. More subjects are judged, so intervals are tighter in small cohorts, but fewer are fitted
    on. Figures are those of all out-of-fold scores together; ROC-AUC compares within folds.

C and alpha are picked by inner cross-validation over subjects, within the fitting rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import Rows, bootstrap_intervals
from pipeline.evaluation.linear import LinearProbe, grouped_folds
from pipeline.evaluation.scores import classification_scores, regression_scores
from pipeline.evaluation.targets import Target, make_target
from schemas.errors import ContractError
from schemas.params import ProbeParams

Floats = NDArray[np.float64]
Metrics = dict[str, dict[str, dict[str, dict[str, Any]]]]

FIT_SPLITS = ("train", "val")
UNSEEN_SPLITS = ("val", "test")
DIRECTION_FEATURES = "y_sem"

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

    n = (y_sem - mean) / std; n' = n + scale * spread * weight; y_sem' = n' * std + mean, so that a
    scale counts standard deviations of the fitting scans. (As published: scale * sqrt(dim).)
    """

    weight: Floats
    """(dim,), length 1."""
    mean: Floats
    """(dim,), of the fitting scans."""
    std: Floats
    """(dim,), of the fitting scans."""
    spread: float
    """Standard deviation of the fitting scans along `weight`, in standardised y_sem space."""
    towards: str
    """What lies in its direction; `--direction` takes it by this name."""


@dataclass(slots=True)
class ProbeResults:
    """What the probes found."""

    metrics: Metrics = field(default_factory=dict)
    """Protocol `test`: {target: {feature_set: {metric: Estimate as a dict}}}."""
    cv_metrics: Metrics = field(default_factory=dict)
    """Protocol `cv`, same shape."""
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each target is: kind, positive and negative class, scans and subjects a protocol."""
    skipped: dict[str, str] = field(default_factory=dict)
    """`target`, `target/<feature set>`, `target/cv` and the like not judged, and why."""
    predictions: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(PREDICTION_COLUMNS))
    )
    """One row a scan, target, feature set and protocol: PREDICTION_COLUMNS."""
    directions: dict[str, Direction] = field(default_factory=dict)
    """One a target, from the `test` protocol's probe on y_sem."""
    fits: dict[str, dict[str, LinearProbe]] = field(default_factory=dict)
    """Protocol `test`: every fitted number. Depends on the rows of train and val alone."""

    def document(self) -> dict[str, Any]:
        """Return all but predictions, directions and fits as one JSON-able dict."""
        return {
            "test": self.metrics,
            "cv": self.cv_metrics,
            "targets": self.targets,
            "skipped": self.skipped,
        }

    def add_predictions(self, rows: pd.DataFrame) -> None:
        """Append rows of PREDICTION_COLUMNS."""
        parts = [self.predictions, rows] if len(self.predictions) else [rows]
        self.predictions = pd.concat(parts, ignore_index=True)


def fit_probes(
    feature_sets: Mapping[str, NDArray[np.floating]], table: pd.DataFrame, params: ProbeParams
) -> ProbeResults:
    """Return metrics, predictions and directions of every target and feature set.

    A target that cannot be fitted or judged (a missing or constant column, too few subjects of a
    class) is no error: it stands in `skipped` with its reason.

    Parameters
    ----------
    feature_sets
        Name to features (scan, dim). `y_sem` also gives the directions. Judged beside them on the
        same scans: `chance` (majority class, or mean of the fitting scans), `age_sex` (whichever of
        age and sex is not the target itself), and `oracle` (the columns params.oracle, when all
        are there).
    table
        Manifest rows aligned with the features: scan_id, subject_id, split and the label columns.
    params
        Targets, oracle columns, folds, bootstrap draws, seed.

    Raises
    ------
    ContractError
        If features and table disagree in length, or a feature is NaN or infinite.
    """
    _check(feature_sets, table)
    # Folds and draws must not depend on the order in which a store happens to keep its rows.
    order = np.argsort(table["scan_id"].to_numpy(dtype=str), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    features = {name: np.asarray(values)[order] for name, values in feature_sets.items()}
    results = ProbeResults()
    wanted: dict[str, tuple[str, str] | None] = {**params.classification}
    wanted |= dict.fromkeys(params.regression)
    for name, classes in wanted.items():
        target = make_target(name, classes, features, table, params, results.skipped)
        if target is not None:
            _judge_on_test(target, results)
            _judge_by_cv(target, results)
    return results


def _check(feature_sets: Mapping[str, NDArray[np.floating]], table: pd.DataFrame) -> None:
    for name, values in feature_sets.items():
        if values.ndim != 2 or len(values) != len(table):
            raise ContractError(
                f"features {name}: shape {values.shape}, expected ({len(table)}, dim), one row a "
                "manifest row; run `embed` on the same manifest"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            scans = ", ".join(table["scan_id"].iloc[bad[:5]])
            raise ContractError(f"features {name}: NaN or infinite for {scans}; run `embed` again")


def _judge_on_test(target: Target, results: ProbeResults) -> None:
    fit_rows, test_rows = target.rows_in(FIT_SPLITS), target.rows_in(("test",))
    reason = target.unfit_reason(fit_rows, "train and val")
    if reason is not None:
        results.skipped[target.name] = reason
        return
    fits = {name: target.fit(name, fit_rows) for name in target.features}
    results.fits[target.name] = fits
    _add_direction(target, fits, fit_rows, results)
    if not len(test_rows):
        results.skipped[target.name] = f"{target.name}: no labelled scan in test"
        return
    scores = {name: probe.score(target.features[name][test_rows]) for name, probe in fits.items()}
    results.metrics[target.name] = _metrics(target, test_rows, scores)
    _describe(target, results)["test"] = {
        "fitted_on": target.size(fit_rows),
        "judged_on": target.size(test_rows),
    }
    results.add_predictions(_predictions(target, test_rows, scores, "test"))
    if target.classes is not None and len(np.unique(target.truth[test_rows])) < 2:
        only = target.classes[int(target.truth[test_rows][0])]
        results.skipped[f"{target.name}/roc_auc"] = (
            f"{target.name}: only {only} in test, so ROC-AUC and balanced accuracy are undefined"
        )


def _judge_by_cv(target: Target, results: ProbeResults) -> None:
    rows = target.rows_in(UNSEEN_SPLITS)
    splits = [
        (rows[fit], rows[held_out])
        for fit, held_out in grouped_folds(
            target.truth[rows],
            target.subjects[rows],
            target.kind,
            folds=target.params.folds,
            seed=target.params.seed,
        )
    ]
    where = "a fold of val and test"
    reasons = [target.unfit_reason(fit, where) for fit, _ in splits]
    reason = next(filter(None, reasons), None) if splits else target.unfit_reason(rows, where)
    if reason is not None or not splits:
        results.skipped[f"{target.name}/cv"] = reason or f"{target.name}: too few subjects to fold"
        return
    judged = np.concatenate([held_out for _, held_out in splits])
    scores = {
        name: np.concatenate(
            [target.fit(name, fit).score(values[held_out]) for fit, held_out in splits]
        )
        for name, values in target.features.items()
    }
    fold = np.repeat(np.arange(len(splits)), [len(held_out) for _, held_out in splits])
    results.cv_metrics[target.name] = _metrics(target, judged, scores, fold)
    _describe(target, results)["cv"] = {"folds": len(splits), "judged_on": target.size(judged)}
    results.add_predictions(_predictions(target, judged, scores, "cv"))


def _metrics(
    target: Target, rows: Rows, scores: dict[str, Floats], fold: Rows | None = None
) -> dict[str, dict[str, Any]]:
    """Return {feature_set: {metric: Estimate as a dict}}; every set on the same draws."""
    truth, subjects = target.truth[rows], target.subjects[rows]
    metrics = {}
    for name, score in scores.items():

        def statistics(drawn: Rows, name: str = name, score: Floats = score) -> dict[str, float]:
            if target.kind == "classification":
                folds = None if fold is None else fold[drawn]
                return classification_scores(truth[drawn], score[drawn], folds)
            figures = regression_scores(truth[drawn], score[drawn])
            if "oracle" in scores and name not in ("chance", "oracle"):
                figures["gap_closed"] = gap_closed(
                    figures["mae"], truth[drawn], scores["chance"][drawn], scores["oracle"][drawn]
                )
            return figures

        estimates = bootstrap_intervals(
            statistics, subjects, draws=target.params.bootstrap, seed=target.params.seed
        )
        metrics[name] = {metric: estimate.model_dump() for metric, estimate in estimates.items()}
    return metrics


def gap_closed(mae: float, truth: Floats, chance: Floats, oracle: Floats) -> float:
    """Return how much of the way from guessing the mean to the oracle an MAE goes (1 is all).

    NaN where the oracle is no better than the guess.
    """
    guess_mae, oracle_mae = np.abs(chance - truth).mean(), np.abs(oracle - truth).mean()
    gap = guess_mae - oracle_mae
    return float((guess_mae - mae) / gap) if gap > 0 else float("nan")


def _describe(target: Target, results: ProbeResults) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": target.kind}
    if target.classes is not None:
        entry |= {"negative": target.classes[0], "positive": target.classes[1]}
    return results.targets.setdefault(target.name, entry)


def _add_direction(
    target: Target, fits: dict[str, LinearProbe], fit_rows: Rows, results: ProbeResults
) -> None:
    probe = fits.get(DIRECTION_FEATURES)
    if probe is None:
        return
    length = float(np.linalg.norm(probe.coef))
    if length == 0:
        reason = f"{target.name}: the probe's weights are all zero, so it has no direction"
        results.skipped[f"{target.name}/direction"] = reason
        return
    towards = target.name if target.classes is None else f"{target.name}:{target.classes[1]}"
    weight = probe.coef / length
    features = target.features[DIRECTION_FEATURES][fit_rows].astype(np.float64)
    spread = float(np.std((features - probe.mean) / probe.std @ weight))
    results.directions[target.name] = Direction(weight, probe.mean, probe.std, spread, towards)


def _predictions(
    target: Target, rows: Rows, scores: dict[str, Floats], protocol: str
) -> pd.DataFrame:
    scans = target.table.iloc[rows][["scan_id", "subject_id", "split"]]
    return pd.concat(
        [
            scans.assign(
                target=target.name,
                feature_set=name,
                protocol=protocol,
                truth=target.truth[rows],
                score=score,
            )
            for name, score in scores.items()
        ]
    )[list(PREDICTION_COLUMNS)]
