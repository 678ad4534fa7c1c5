"""The directions of a study, with what the page shows beside the slider."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from pipeline.explore.answers import answers, unseen_people
from pipeline.explore.study import ExploreStudy
from pipeline.models.direction import FILE, Direction, read_direction
from pipeline.probes.applied import SavedProbe, read_probes
from pipeline.probes.results import PREDICTION_COLUMNS
from pipeline.report.metrics_files import read_metrics
from pipeline.report.sections.verdicts import doubt_of, printed
from schemas.errors import ContractError, PipelineError
from schemas.metrics import Estimate
from schemas.results import PROTOCOLS, ProbeMetrics

NONE = "no directions to move along: run `pipeline probe`, and start this page again."


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDirections:
    """Directions by the name of the end that they point to."""

    file: Path | None
    by_name: dict[str, Direction]
    documents: list[dict[str, Any]]
    """One a direction, as the page reads it."""


def study_directions(study: ExploreStudy, ldae: Path | None) -> StudyDirections:
    """Return the directions of the study's probes, else those that came with an imported LDAE.

    Those that cannot be used become a note of the study.
    """
    nothing = StudyDirections(file=None, by_name={}, documents=[])
    if study.y_sem is None or study.ldae_digest is None:
        return nothing
    candidates = [study.paths.probe / FILE, *([ldae / FILE] if ldae else [])]
    files = [path for path in candidates if path.is_file()]
    if not files:
        study.notes.append(f"{study.paths.probe / FILE}: {NONE}")
    for path in files:
        try:
            return _read(study, path)
        except PipelineError as error:
            study.notes.append(f"{error}.")
    return nothing


def _read(study: ExploreStudy, path: Path) -> StudyDirections:
    assert study.y_sem is not None
    assert study.ldae_digest is not None
    dim = study.y_sem.shape[1]
    metrics = read_metrics(path.with_name("metrics.json"), ProbeMetrics)
    predictions = _predictions(path.with_name("predictions.parquet"), study.notes)
    try:
        probes, _ = read_probes(path, ldae_digest=study.ldae_digest, dim=dim)
    except ContractError:
        probes = []  # directions of earlier versions come without their probes
    by_target = {probe.target: probe for probe in probes}
    by_name, documents = {}, []
    for target in _targets(path):
        direction = read_direction(path, target, ldae_digest=study.ldae_digest, dim=dim)
        by_name[direction.towards] = direction
        positions = direction.position(study.y_sem)
        probe: SavedProbe | None = by_target.get(target)
        documents.append(
            {
                "name": direction.towards,
                "target": target,
                "unit": "SD" if not direction.assumed_spread else "length of y_sem",
                "assumed": direction.assumed_spread,
                "positions": [round(float(p), 4) if np.isfinite(p) else None for p in positions],
                "doubt": doubt_of(direction.towards, metrics),
                "figure": _figure(target, metrics),
                "answer": probe and answers(probe, unseen_people(predictions, target)),
            }
        )
    return StudyDirections(file=path, by_name=by_name, documents=documents)


def _targets(path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(path.read_text())["directions"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{path}: expected directions.json of the probe stage; run `pipeline probe`"
        ) from error


def _predictions(path: Path, notes: list[str]) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(path)
        numbers = table[["repeat", "truth", "score"]]
        if {*PREDICTION_COLUMNS} <= {*table} and all(map(is_numeric_dtype, numbers.dtypes)):
            return table
    except (OSError, ValueError, KeyError):
        pass
    notes.append(f"{path}: not the table of `pipeline probe`, so its answers have no intervals.")
    return None


def _figure(target: str, metrics: ProbeMetrics | None) -> str | None:
    """Return how well the probe of a direction reads, where there are most people."""
    if metrics is None or target not in metrics.targets:
        return None
    classes = metrics.targets[target].kind == "classification"
    metric, name = ("roc_auc", "ROC-AUC") if classes else ("mae", "mean error")
    found: list[Estimate] = [
        figures[metric]
        for protocol in PROTOCOLS
        if metric in (figures := metrics.figures(protocol).get(target, {}).get("y_sem", {}))
    ]
    if not found:
        return None
    best = max(found, key=lambda estimate: estimate.subjects)
    limits = "" if best.interval is None else f" [{best.interval[0]:.2f}, {best.interval[1]:.2f}]"
    return f"{name} {printed(best)}{limits}, {best.subjects} people left out"
