"""Apply probes that were fitted before, or elsewhere, to new scans; nothing is fitted here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.metrics.bootstrap import Rows
from pipeline.metrics.prediction_scores import without_ranks
from pipeline.models.direction import FILE, Direction, Readout, read_direction, subject_mark
from pipeline.probes.probe_intervals import probe_estimates
from pipeline.probes.results import PREDICTION_COLUMNS, ProbeResults, ProtocolResult
from pipeline.probes.targets import DIRECTION_FEATURES, Target, make_target, problem_of
from pipeline.runtime.files import write_json
from pipeline.runtime.progress import counted
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.metrics import Prediction
from schemas.results import ProtocolSizes

Floats = NDArray[np.float64]
FEWEST_FOR_SPREAD = 10
"""Subjects from which on their spread along a direction stands in for one that is not known."""
SCORE_COLUMNS = ("scan_id", "subject_id", "target", "towards", "position", "score")


@dataclass(frozen=True, slots=True)
class SavedProbe:
    """A probe of directions.json."""

    target: str
    direction: Direction
    readout: Readout

    def score(self, y_sem: NDArray[np.floating]) -> Floats:
        """Return the probability of the positive class, or the value, of codes (scan, dim)."""
        place = self.direction.position(y_sem) * self.direction.spread
        value = self.readout.slope * place + self.readout.intercept
        return np.asarray(expit(value) if self.readout.kind == "classification" else value)


@dataclass(frozen=True, slots=True)
class AppliedProbes:
    """Scores of every scan, and figures where there are labels."""

    results: ProbeResults
    scores: pd.DataFrame
    """One row a scan and probe: SCORE_COLUMNS, labelled or not."""


def read_probes(path: Path, *, ldae_digest: str, dim: int) -> tuple[list[SavedProbe], set[str]]:
    """Return the probes of a directions.json, and the marks of subjects they were fitted on.

    Raises
    ------
    ContractError
        If the file is none, holds no probe, or is of another LDAE.
    """
    try:
        content = json.loads(path.read_text())
        entries = dict(content["directions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{path}: expected directions.json of `pipeline probe` or `pipeline import-ldae`"
        ) from error
    probes = []
    for target, entry in entries.items():
        direction = read_direction(path, target, ldae_digest=ldae_digest, dim=dim)
        if "probe" in entry:
            probes.append(SavedProbe(target, direction, _readout(entry["probe"], path, target)))
    if not probes:
        raise ContractError(
            f"{path}: no probe in it that could be applied; run `pipeline probe` again, files of"
            " earlier versions hold directions alone"
        )
    return probes, set(content.get("fitted_subjects", ()))


def _readout(entry: Any, path: Path, target: str) -> Readout:
    reason = f"{path}: the probe of {target} is incomplete; run `pipeline probe`"
    try:
        kind, classes = entry["kind"], entry["classes"]
        slope, intercept = float(entry["slope"]), float(entry["intercept"])
        if kind == "classification" or classes is not None:
            classes = (str(classes[0]), str(classes[1]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ContractError(reason) from error
    if kind not in get_args(Prediction) or not np.isfinite([slope, intercept]).all():
        raise ContractError(reason)
    return Readout(kind=kind, slope=slope, intercept=intercept, classes=classes)


def apply_probes(
    path: Path,
    y_sem: NDArray[np.floating],
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    ldae_digest: str,
) -> AppliedProbes:
    """Return scores of every scan, and metrics with intervals where labels are.

    Scans of subjects that a probe was fitted on get a score and are not judged. Classes are called
    as params.classification calls them, where it names the target.

    Parameters
    ----------
    path
        directions.json of `probe` or of `import-ldae`.
    y_sem
        (scan, dim), aligned with `table`: scan_id, subject_id, split and label columns.

    Raises
    ------
    ContractError
        If the file is none, holds no probe, or is of another LDAE.
    """
    probes, fitted = read_probes(path, ldae_digest=ldae_digest, dim=y_sem.shape[1])
    seen = table["subject_id"].astype(str).map(subject_mark).isin(fitted).to_numpy()
    results, scores = ProbeResults(), []
    for probe in probes:
        score = probe.score(y_sem)
        scores.append(
            table[["scan_id", "subject_id"]].assign(
                target=probe.target,
                towards=probe.direction.towards,
                position=probe.direction.position(y_sem),
                score=score,
            )
        )
        new = np.flatnonzero(~seen)
        if len(new):
            unseen = table.iloc[new].reset_index(drop=True)
            _add_figures(results, probe, score[new], unseen, params)
        else:
            results.skipped[probe.target] = (
                f"{probe.target}: the probe was fitted on every subject, so none is new"
            )
        if seen.any():
            results.remarks[probe.target] = (
                f"{probe.target}: {counted(int(seen.sum()), 'scan')} of subjects that the probe was"
                " fitted on are not judged"
            )
    return AppliedProbes(results, pd.concat(scores, ignore_index=True)[list(SCORE_COLUMNS)])


def _add_figures(
    results: ProbeResults,
    probe: SavedProbe,
    score: Floats,
    table: pd.DataFrame,
    params: ProbeParams,
) -> None:
    """Add the figures of a probe's scores of scans, where these carry its label."""
    name, classes = probe.target, probe.readout.classes
    if classes is not None:
        classes = params.classification.get(name, classes)
    problem = problem_of(name, classes, table)
    if problem is not None:
        results.skipped[name] = problem
        return
    # Nothing is fitted, so nothing that would be fitted is made, or missed with a line.
    alone = params.model_copy(update={"covariates": (), "harmonise": "none"})
    target = make_target(name, classes, {DIRECTION_FEATURES: score[:, None]}, table, alone)
    results.skipped |= target.left_out
    results.add(target, "test", _score(target, params))


def _score(target: Target, params: ProbeParams) -> ProtocolResult:
    score = np.asarray(target.features[DIRECTION_FEATURES][:, 0], dtype=np.float64)
    every: Rows = np.arange(len(score))
    figures = probe_estimates(
        target.truth,
        {DIRECTION_FEATURES: score[None]},
        target.subjects,
        target.kind,
        draws=params.bootstrap,
        seed=params.seed,
    )
    skipped = {}
    reason = target.unranked_reason(every, "these scans")
    if reason is not None and target.classes is not None:
        skipped[f"{target.name}/roc_auc"] = reason
        classes = len(np.unique(target.truth))
        figures = {s: without_ranks(f, classes) for s, f in figures.items()}
    predictions = target.table[["scan_id", "subject_id", "split"]].assign(
        target=target.name,
        feature_set=DIRECTION_FEATURES,
        protocol="test",
        repeat=0,
        truth=target.truth,
        score=score,
    )[list(PREDICTION_COLUMNS)]
    return ProtocolResult(
        skipped=skipped,
        sizes=ProtocolSizes(judged_on=target.size(every)),
        figures=figures,
        predictions=predictions,
    )


def write_known_spread(path: Path, scores: pd.DataFrame, out: Path) -> list[str]:
    """Copy a directions.json; a spread that is not known becomes that of these scans.

    Returns
    -------
    list of str
        Targets whose spread was measured.
    """
    content: dict[str, Any] = json.loads(path.read_text())
    measured = []
    for target, entry in content["directions"].items():
        rows = scores[scores["target"] == target]
        enough = rows["subject_id"].nunique() >= FEWEST_FOR_SPREAD
        spread = float(rows["position"].std(ddof=0)) * float(entry["spread"]) if enough else 0.0
        if entry.get("assumed_spread") and spread > 0:
            entry["spread"] = spread
            entry["spread_of_scans"] = len(rows)
            del entry["assumed_spread"]
            measured.append(str(target))
    write_json(out / FILE, content)
    return measured
