"""Probes: how much of a label a frozen representation carries, and what its rivals carry.

Two protocols, side by side:

`test`
    Fitted on the subjects of train and val, judged on the subjects of test. The networks learn
    from the images of train and are selected on the images of val; no network ever sees a label,
    so val serves the probes as further training subjects.
`cv`
    Grouped cross-validation over the subjects of val and test alone, whom no network was trained
    on, stratified and repeated with other folds. More subjects are judged, fewer are fitted on;
    intervals take in that another cohort gives other fits. Figures are those of all out-of-fold
    scores together, the mean over repeats; ROC-AUC and PR-AUC compare within folds.

C, alpha and k are picked by inner cross-validation over subjects, within the fitting rows. In fits
and figures every subject weighs the same, by scans of equal weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.metrics.prediction_scores import without_ranks
from pipeline.models.direction import Direction
from pipeline.probes.estimators import HEADS, Head, Probe
from pipeline.probes.linear import LinearProbe, direction_of, many_fits, repeated_folds
from pipeline.probes.multiplicity import adjust
from pipeline.probes.permutation_test import permutation_p
from pipeline.probes.probe_intervals import probe_differences, probe_estimates
from pipeline.probes.targets import Target, make_target, unlabelled
from pipeline.runtime.progress import Progress, few
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.metrics import Estimate

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
    "repeat",
    "split",
    "truth",
    "score",
)


@dataclass(slots=True)
class ProbeResults:
    """What the probes found."""

    metrics: Metrics = field(default_factory=dict)
    """Protocol `test`: {target: {feature_set: {metric: Estimate as a dict}}}."""
    cv_metrics: Metrics = field(default_factory=dict)
    """Protocol `cv`, same shape."""
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each target is: kind, positive and negative class, scans and subjects a protocol."""
    differences: dict[str, Metrics] = field(default_factory=dict)
    """Protocol to metrics of the same shape: y_sem minus each rival, paired."""
    skipped: dict[str, str] = field(default_factory=dict)
    """`target`, `target/<feature set>`, `target/cv` and the like not judged, and why."""
    predictions: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(PREDICTION_COLUMNS))
    )
    """One row a scan, target, feature set and protocol: PREDICTION_COLUMNS."""
    directions: dict[str, Direction] = field(default_factory=dict)
    """One a target, from the `test` protocol's probe on y_sem."""
    remarks: dict[str, str] = field(default_factory=dict)
    """Target to a line on the scans that carry no such label."""
    fits: dict[str, dict[str, Probe]] = field(default_factory=dict)
    """Protocol `test`: every fitted number. Depends on the rows of train and val alone."""

    def document(self) -> dict[str, Any]:
        """Return all but predictions, directions and fits as one JSON-able dict."""
        return {
            "test": self.metrics,
            "cv": self.cv_metrics,
            "differences": self.differences,
            "targets": self.targets,
            "skipped": self.skipped,
            "remarks": self.remarks,
        }

    def add_predictions(self, rows: pd.DataFrame) -> None:
        """Append rows of PREDICTION_COLUMNS."""
        parts = [self.predictions, rows] if len(self.predictions) else [rows]
        self.predictions = pd.concat(parts, ignore_index=True)


def fit_probes(
    feature_sets: Mapping[str, NDArray[np.floating]],
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    heads: Mapping[str, Head] | None = None,
) -> ProbeResults:
    """Return metrics, predictions and directions of every target and feature set.

    A target that cannot be fitted or judged (a missing or constant column, too few subjects of a
    class) is no error: it stands in `skipped` with its reason.

    Parameters
    ----------
    feature_sets
        Name to features (scan, dim). `y_sem` also gives the directions. Judged beside them on the
        same scans: `chance` (majority class, or median of the fitting subjects), `age_sex`
        (whichever of age and sex is not the target itself), and `oracle` (the columns
        params.oracle, when all are there).
    table
        Manifest rows aligned with the features: scan_id, subject_id, split and the label columns.
    params
        Targets, oracle columns, folds, bootstrap draws, seed. `heads` there read y_sem in further
        ways (`y_sem_knn`, `y_sem_mlp`).
    heads
        What reads a feature set, where it is not the linear layer.

    Raises
    ------
    ContractError
        If features and table disagree in length, or a feature is NaN or infinite.
    """
    _check(feature_sets, table)
    # Folds and draws must not depend on the order in which a store happens to keep its rows;
    # permuted labels go by the order of visits.
    order = _in_order_of_visits(table)
    table = table.iloc[order].reset_index(drop=True)
    features = {name: np.asarray(values)[order] for name, values in feature_sets.items()}
    all_heads = dict(heads or {})
    for head in params.heads if DIRECTION_FEATURES in features else ():
        features[f"{DIRECTION_FEATURES}_{head}"] = features[DIRECTION_FEATURES]
        all_heads[f"{DIRECTION_FEATURES}_{head}"] = HEADS[head]
    results = ProbeResults()
    wanted: dict[str, tuple[str, str] | None] = {**params.classification}
    wanted |= dict.fromkeys(params.regression)
    for name, classes in wanted.items():
        target = make_target(
            name, classes, features, table, params, results.skipped, heads=all_heads
        )
        if target is not None:
            remark = unlabelled(name, classes, table, target)
            results.remarks |= {} if remark is None else {name: remark}
            rounds = 1 + params.repeats * params.folds
            widest = max(values.size for values in features.values())
            with many_fits(widest), Progress(f"probe {name}", total=rounds) as bar:
                _judge_on_test(target, results)
                bar.advance()
                _judge_by_cv(target, results, bar)
    adjust(results.targets, params)
    return results


def _in_order_of_visits(table: pd.DataFrame) -> Rows:
    """Return the rows by subject, then time, then scan."""
    months = pd.to_numeric(
        table.get("months_from_first", pd.Series(0.0, index=table.index)), errors="coerce"
    ).to_numpy(dtype=np.float64)
    keys = [table[name].to_numpy(dtype=str) for name in ("scan_id", "subject_id")]
    rows: Rows = np.lexsort((keys[0], months, keys[1]))
    return rows


def _check(feature_sets: Mapping[str, NDArray[np.floating]], table: pd.DataFrame) -> None:
    for name, values in feature_sets.items():
        if values.ndim != 2 or len(values) != len(table):
            raise ContractError(
                f"features {name}: shape {values.shape}, expected ({len(table)}, dim), one row a "
                "manifest row; run `embed` on the same manifest"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            scans = few(list(table["scan_id"].iloc[bad]))
            raise ContractError(f"features {name}: NaN or infinite for {scans}; run `embed` again")


def _judge_on_test(target: Target, results: ProbeResults) -> None:
    fit_rows, test_rows = target.rows_in(FIT_SPLITS), target.rows_in(("test",))
    reason = target.split_reason() or target.unfit_reason(fit_rows, "train and val")
    if reason is not None:
        results.skipped[target.name] = reason
        return
    fits = {name: target.fit(name, fit_rows) for name in target.features}
    results.fits[target.name] = fits
    _add_direction(target, fits, fit_rows, results)
    if not len(test_rows):
        results.skipped[target.name] = f"{target.name}: no labelled scan in test"
        return
    scores = {
        name: probe.score(target.features[name][test_rows])[None] for name, probe in fits.items()
    }
    _judge(target, test_rows, scores, "test", results)
    _describe(target, results)["test"] = {
        "fitted_on": target.size(fit_rows),
        "judged_on": target.size(test_rows),
    }
    results.add_predictions(_predictions(target, test_rows, scores, "test"))
    reason = target.unranked_reason(test_rows, "test")
    if reason is not None:
        classes = len(np.unique(target.truth[test_rows]))
        sets = results.metrics[target.name]
        results.metrics[target.name] = {s: without_ranks(f, classes) for s, f in sets.items()}
        results.skipped[f"{target.name}/roc_auc"] = reason
        results.differences.get("test", {}).pop(target.name, None)
        return
    _add_p_value(target, "test", [(fit_rows, test_rows)], [fits], results)


def _judge_by_cv(target: Target, results: ProbeResults, bar: Progress) -> None:
    """Judge every scan of val and test once a repeat, by a probe that never saw its subject."""
    rows = target.rows_in(UNSEEN_SPLITS)
    where = "a fold of val and test"
    repeats = _repeats(target, rows)
    fitted_on = [fit for splits in repeats for fit, _ in splits]
    reason = next(filter(None, (target.unfit_reason(fit, where) for fit in fitted_on)), None)
    if not fitted_on:
        reason = target.unfit_reason(rows, where) or f"{target.name}: too few subjects to fold"
    if reason is not None:
        results.skipped[f"{target.name}/cv"] = reason
        return
    scores = {name: np.full((len(repeats), len(rows)), np.nan) for name in target.features}
    fold = np.full((len(repeats), len(rows)), -1)
    first: list[dict[str, Probe]] = []
    for repeat, splits in enumerate(repeats):
        for number, (fit, held_out) in enumerate(splits):
            fits = {name: target.fit(name, fit) for name in target.features}
            at = np.searchsorted(rows, held_out)
            fold[repeat, at] = number
            for name, probe in fits.items():
                scores[name][repeat, at] = probe.score(target.features[name][held_out])
            first += [fits] if repeat == 0 else []
            bar.advance()
    judged = (fold >= 0).all(axis=0)
    scores = {name: values[:, judged] for name, values in scores.items()}
    _judge(target, rows[judged], scores, "cv", results, fold[:, judged])
    _describe(target, results)["cv"] = {
        "folds": len(repeats[0]),
        "repeats": len(repeats),
        "judged_on": target.size(rows[judged]),
    }
    results.add_predictions(_predictions(target, rows[judged], scores, "cv"))
    _add_p_value(target, "cv", repeats[0], first, results)


def _repeats(target: Target, rows: Rows) -> list[list[tuple[Rows, Rows]]]:
    repeats = repeated_folds(
        target.truth[rows],
        target.subjects[rows],
        target.kind,
        folds=target.params.folds,
        repeats=target.params.repeats,
        seed=target.params.seed,
    )
    return [[(rows[fit], rows[held_out]) for fit, held_out in folds] for folds in repeats]


def _add_p_value(
    target: Target,
    protocol: str,
    splits: list[tuple[Rows, Rows]],
    fits: list[dict[str, Probe]],
    results: ProbeResults,
) -> None:
    probes = [fit.get(DIRECTION_FEATURES) for fit in fits]
    strengths = [p.strength for p in probes if isinstance(p, LinearProbe) and p.strength]
    if not target.params.permutations or len(strengths) < len(splits):
        return
    p = permutation_p(
        target.features[DIRECTION_FEATURES],
        target.truth,
        target.subjects,
        target.kind,
        splits=splits,
        strengths=strengths,
        permutations=target.params.permutations,
        seed=target.params.seed,
    )
    if p is None:
        results.skipped[f"{target.name}/{protocol}/permutation"] = (
            f"{target.name}: too few subjects can exchange their labels for a permutation test"
            f" ({'test' if protocol == 'test' else 'cross-validation'})"
        )
        return
    about = {"p": p, "permutations": target.params.permutations}
    _describe(target, results)[protocol]["permutation"] = about


def _judge(
    target: Target,
    rows: Rows,
    scores: dict[str, Floats],
    protocol: str,
    results: ProbeResults,
    fold: Rows | None = None,
) -> None:
    """Add {feature_set: {metric: Estimate as a dict}}, and paired differences to y_sem.

    `scores` and `fold` are (repeat, scan); a figure is its mean over the repeats.
    """
    given: dict[str, Any] = {
        "truth": target.truth[rows],
        "scores": scores,
        "subjects": target.subjects[rows],
        "kind": target.kind,
        "fold": fold,
    }
    params = target.params
    found = probe_estimates(**given, draws=params.bootstrap, seed=params.seed)
    kept = results.metrics if protocol == "test" else results.cv_metrics
    kept[target.name] = _plain(found)
    if DIRECTION_FEATURES in scores and len(np.unique(given["truth"])) > 1:
        paired = probe_differences(**given, first=DIRECTION_FEATURES)
        results.differences.setdefault(protocol, {})[target.name] = _plain(paired)


def _plain(found: dict[str, dict[str, Estimate]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        name: {metric: one.model_dump() for metric, one in figures.items()}
        for name, figures in found.items()
    }


def _describe(target: Target, results: ProbeResults) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": target.kind}
    if target.classes is not None:
        entry |= {"negative": target.classes[0], "positive": target.classes[1]}
    return results.targets.setdefault(target.name, entry)


def _add_direction(
    target: Target, fits: dict[str, Probe], fit_rows: Rows, results: ProbeResults
) -> None:
    probe = fits.get(DIRECTION_FEATURES)
    if not isinstance(probe, LinearProbe):
        return
    towards = target.name if target.classes is None else f"{target.name}:{target.classes[1]}"
    direction = direction_of(probe, target.features[DIRECTION_FEATURES][fit_rows], towards)
    if direction is None:
        reason = f"{target.name}: the probe's weights are all zero, so it has no direction"
        results.skipped[f"{target.name}/direction"] = reason
        return
    results.directions[target.name] = direction


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
                repeat=repeat,
                truth=target.truth[rows],
                score=score,
            )
            for name, repeats in scores.items()
            for repeat, score in enumerate(repeats)
        ]
    )[list(PREDICTION_COLUMNS)]
