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
    scores together, the mean over repeats; ROC-AUC and PR-AUC compare within folds. With a
    cross-fitting: over the subjects of all splits, its own folds are left out, once; features of
    fold k are fitted on the other folds, y_sem is by a model that never saw the scan's person.

C, alpha and k are picked by inner cross-validation over subjects, within the fitting rows. In fits
and figures every subject weighs the same, by scans of equal weight.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.metrics.prediction_scores import without_ranks
from pipeline.models.direction import Direction
from pipeline.probes.confounds.harmonise import require_combatlearn
from pipeline.probes.confounds.sites import SITE, site_warnings
from pipeline.probes.cross_fitting import CrossFit, Readers
from pipeline.probes.estimators import HEADS, Head, Probe
from pipeline.probes.judging import JudgedScores
from pipeline.probes.linear import LinearProbe, direction_of, many_fits, repeated_folds
from pipeline.probes.multiplicity import adjust
from pipeline.probes.permutation_test import permutation_p
from pipeline.probes.results import ProbeResults, ProtocolResult
from pipeline.probes.targets import DIRECTION_FEATURES, Target, make_target, problem_of, unlabelled
from pipeline.runtime.progress import Progress, few
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.results import (
    FiguresOfTargets,
    PermutationTest,
    Protocol,
    ProtocolSizes,
)

Floats = NDArray[np.float64]

FIT_SPLITS = ("train", "val")
UNSEEN_SPLITS = ("val", "test")


def fit_probes(
    feature_sets: Mapping[str, NDArray[np.floating]],
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    heads: Mapping[str, Head] | None = None,
    crossfit: CrossFit | None = None,
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
        params.oracle, when all are there), `site` and `covariates` where the table has them.
    table
        Manifest rows aligned with the features: scan_id, subject_id, split and the label columns.
    params
        Targets, oracle columns, folds, bootstrap draws, seed. `heads` there read y_sem in further
        ways (`y_sem_knn`, `y_sem_mlp`).
    heads
        What reads a feature set, where it is not the linear layer.
    crossfit
        Where given, `cv` leaves out its folds, one after the other, and judges everybody.

    Raises
    ------
    ContractError
        If features and table disagree in length, or a feature (but for rivals) is not finite.
    """
    require_combatlearn(params)
    _check(feature_sets, table, params)
    # Folds and draws must not depend on the order in which a store happens to keep its rows;
    # permuted labels go by the order of visits.
    order = _in_order_of_visits(table)
    table = table.iloc[order].reset_index(drop=True)
    features = {name: np.asarray(values)[order] for name, values in feature_sets.items()}
    all_heads = dict(heads or {})
    further = params.heads if DIRECTION_FEATURES in features else ()
    for head in further:
        features[f"{DIRECTION_FEATURES}_{head}"] = features[DIRECTION_FEATURES]
        all_heads[f"{DIRECTION_FEATURES}_{head}"] = HEADS[head]
    results = ProbeResults()
    if crossfit is not None:
        results.crossfit = crossfit.result
        again = {f"{DIRECTION_FEATURES}_{head}": DIRECTION_FEATURES for head in further}
        crossfit = crossfit.in_order(order).with_heads(again)
    wanted: dict[str, tuple[str, str] | None] = {**params.classification}
    wanted |= dict.fromkeys(params.regression)
    for name, classes in wanted.items():
        problem = problem_of(name, classes, table)
        if problem is not None:
            results.skipped[name] = problem
            continue
        target = make_target(name, classes, features, table, params, heads=all_heads)
        results.skipped |= target.left_out
        remark = unlabelled(name, classes, table, target)
        results.remarks |= {} if remark is None else {name: remark}
        readers = None if crossfit is None else crossfit.readers(target, table, all_heads)
        rounds = 1 + (params.repeats * params.folds if readers is None else len(readers.targets))
        widest = max(values.size for values in features.values())
        with many_fits(widest), Progress(f"probe {name}", total=rounds) as bar:
            _fit_for_test(target, results)
            bar.advance()
            results.add(target, "cv", _cross_validate(target, bar, readers))
    adjust(results.targets, params)
    figures: dict[Protocol, FiguresOfTargets] = {"test": results.metrics, "cv": results.cv_metrics}
    results.remarks |= site_warnings(figures, results.targets)
    return results


def _in_order_of_visits(table: pd.DataFrame) -> Rows:
    """Return the rows by subject, then time, then scan."""
    months = pd.to_numeric(
        table.get("months_from_first", pd.Series(0.0, index=table.index)), errors="coerce"
    ).to_numpy(dtype=np.float64)
    keys = [table[name].to_numpy(dtype=str) for name in ("scan_id", "subject_id")]
    rows: Rows = np.lexsort((keys[0], months, keys[1]))
    return rows


def _check(
    feature_sets: Mapping[str, NDArray[np.floating]], table: pd.DataFrame, params: ProbeParams
) -> None:
    for name, values in feature_sets.items():
        if values.ndim != 2 or len(values) != len(table):
            raise ContractError(
                f"features {name}: shape {values.shape}, expected ({len(table)}, dim), one row a "
                "manifest row; run `embed` on the same manifest"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if name in params.rivals and len(bad) < len(values):
            continue  # a rival may lack scans
        if len(bad):
            scans = few(list(table["scan_id"].iloc[bad]))
            raise ContractError(f"features {name}: NaN or infinite for {scans}; run `embed` again")


def _of_protocol(lines: Mapping[str, str], protocol: Protocol) -> dict[str, str]:
    """Return lines on feature sets with their protocol: the other one may read them."""
    told = {"test": "judged on test", "cv": "cross-validated"}[protocol]
    return {f"{key}/{protocol}": f"{line} ({told})" for key, line in lines.items()}


def _fit_for_test(target: Target, results: ProbeResults) -> None:
    """Fit on train and val; add the fits, the direction, and the scores on test."""
    name, fit_rows = target.name, target.rows_in(FIT_SPLITS)
    reason = target.split_reason() or target.unfit_reason(fit_rows, "train and val")
    if reason is not None:
        results.skipped[name] = reason
        return
    names, unread = target.readable(list(target.features), [(fit_rows, target.rows_in(("test",)))])
    results.skipped |= _of_protocol(unread, "test")
    fits = {feature_set: target.fit(feature_set, fit_rows) for feature_set in names}
    results.fits[name] = fits
    probe = fits.get(DIRECTION_FEATURES)
    if isinstance(probe, LinearProbe):
        direction = _direction(target, probe, fit_rows)
        if direction is not None:
            results.directions[name] = direction
        else:
            results.skipped[f"{name}/direction"] = (
                f"{name}: the probe's weights are all zero, so it has no direction"
            )
    results.add(target, "test", _score_on_test(target, fits, fit_rows))


def _score_on_test(target: Target, fits: dict[str, Probe], fit_rows: Rows) -> ProtocolResult:
    name, test_rows = target.name, target.rows_in(("test",))
    if not len(test_rows):
        return ProtocolResult(skipped={name: f"{name}: no labelled scan in test"})
    scores = {
        feature_set: target.score(probe, feature_set, test_rows)[None]
        for feature_set, probe in fits.items()
    }
    sizes = ProtocolSizes(fitted_on=target.size(fit_rows), judged_on=target.size(test_rows))
    result = JudgedScores(target, test_rows, scores).result("test", sizes)
    reason = target.unranked_reason(test_rows, "test")
    if reason is None:
        return _with_p_value(result, target, "test", [(fit_rows, test_rows)], [fits])
    classes = len(np.unique(target.truth[test_rows]))
    result.figures = {s: without_ranks(f, classes) for s, f in result.figures.items()}
    result.differences = None if result.differences is None else {}
    result.added = {}
    result.skipped[f"{name}/roc_auc"] = reason
    return result


def _cross_validate(
    target: Target, bar: Progress, readers: Readers | None = None
) -> ProtocolResult:
    """Judge every scan once a repeat, by a probe that never saw its subject.

    Every scan is one of val and test, or with `readers` any.
    """
    if readers is None:
        rows, where = target.rows_in(UNSEEN_SPLITS), "a fold of val and test"
        repeats = _repeats(target, rows)
        names, read_by = list(target.features), [target] * target.params.folds
    else:
        problem = readers.problem()
        if problem is not None:
            return ProtocolResult(skipped={f"{target.name}/cv": problem})
        rows, where = np.arange(len(target.truth)), "the other folds of the cross-fitting"
        repeats, names, read_by = [readers.splits], readers.names, readers.targets
    fitted_on = [fit for splits in repeats for fit, _ in splits]
    reason = next(filter(None, (target.unfit_reason(fit, where) for fit in fitted_on)), None)
    if not fitted_on:
        reason = target.unfit_reason(rows, where) or f"{target.name}: too few subjects to fold"
    if reason is not None:
        return ProtocolResult(skipped={f"{target.name}/cv": reason})
    every = [split for splits in repeats for split in splits]
    names, unread = read_by[0].readable(names, every)
    unread = _of_protocol(unread, "cv")
    scores = {name: np.full((len(repeats), len(rows)), np.nan) for name in names}
    fold = np.full((len(repeats), len(rows)), -1)
    first: list[dict[str, Probe]] = []
    for repeat, splits in enumerate(repeats):
        for number, (fit, held_out) in enumerate(splits):
            reader = read_by[number]
            fits = {name: reader.fit(name, fit) for name in names}
            at = np.searchsorted(rows, held_out)
            fold[repeat, at] = number
            for name, probe in fits.items():
                scores[name][repeat, at] = reader.score(probe, name, held_out)
            first += [fits] if repeat == 0 else []
            bar.advance()
    judged = (fold >= 0).all(axis=0)
    scores = {name: values[:, judged] for name, values in scores.items()}
    rows, fold = rows[judged], fold[:, judged]
    sizes = ProtocolSizes(folds=len(repeats[0]), repeats=len(repeats), judged_on=target.size(rows))
    result = JudgedScores(target, rows, scores, fold, read_by[0]).result("cv", sizes)
    result.skipped |= unread
    return _with_p_value(result, read_by[0], "cv", repeats[0], first)


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


def _with_p_value(
    result: ProtocolResult,
    target: Target,
    protocol: Protocol,
    splits: list[tuple[Rows, Rows]],
    fits: list[dict[str, Probe]],
) -> ProtocolResult:
    """Return the result with the permutation tests of y_sem and site, or why there is none."""
    assert result.sizes is not None
    result.sizes.site_permutation, _ = _permutation(target, SITE, splits, fits)
    result.sizes.permutation, possible = _permutation(target, DIRECTION_FEATURES, splits, fits)
    if not possible:
        where = "test" if protocol == "test" else "cross-validation"
        result.skipped[f"{target.name}/{protocol}/permutation"] = (
            f"{target.name}: too few subjects can exchange their labels for a permutation test"
            f" ({where})"
        )
    return result


def _permutation(
    target: Target, feature_set: str, splits: list[tuple[Rows, Rows]], fits: list[dict[str, Probe]]
) -> tuple[PermutationTest | None, bool]:
    """Return the permutation test of a feature set, and False where labels cannot be exchanged."""
    probes = [fit.get(feature_set) for fit in fits]
    strengths = [p.strength for p in probes if isinstance(p, LinearProbe) and p.strength]
    permutations = target.params.permutations
    if not permutations or len(strengths) < len(splits):
        return None, True
    p = permutation_p(
        target.labelled(feature_set),
        splits=splits,
        strengths=strengths,
        permutations=permutations,
        seed=target.params.seed,
    )
    return (None, False) if p is None else (PermutationTest(p=p, permutations=permutations), True)


def _direction(target: Target, probe: LinearProbe, fit_rows: Rows) -> Direction | None:
    towards = target.name if target.classes is None else f"{target.name}:{target.classes[1]}"
    return direction_of(probe, target.features[DIRECTION_FEATURES][fit_rows], towards)
