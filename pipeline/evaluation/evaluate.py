"""Evaluate a study: every part, with its metrics, its table a scan and its pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.generation import evaluate_generation
from pipeline.evaluation.identification import evaluate_identification
from pipeline.evaluation.interpolation import evaluate_interpolation
from pipeline.evaluation.manipulation import evaluate_manipulation
from pipeline.evaluation.reconstruction import evaluate_reconstruction
from pipeline.forecasting.held_out_visits import evaluate_forecast
from pipeline.ground_truth.true_counterfactuals import evaluate_true_counterfactuals
from pipeline.runtime.files import write_json, write_parquet
from pipeline.study.remembering import RememberingInference
from pipeline.study.study import Part, Study
from schemas.results import EvaluateMetrics

PARTS: dict[str, Callable[[Study], Part]] = {
    "reconstruction": evaluate_reconstruction,
    "identification": evaluate_identification,
    "manipulation": evaluate_manipulation,
    "true_counterfactuals": evaluate_true_counterfactuals,
    "interpolation": evaluate_interpolation,
    "forecast": evaluate_forecast,
    "generation": evaluate_generation,
}


def evaluate_study(study: Study, out: Path) -> EvaluateMetrics:
    """Write metrics.json, and `per_scan/<part>.parquet` and `pictures/<part>.npz` of each part.

    Return the metrics. Those of reconstruction stand at the top level, the other parts' under
    their names; a part that could not be run has `skipped` with the reason.

    Raises
    ------
    ContractError
        If the split holds no scan of the stores.
    """
    configs = {"ae": study.models.autoencoder.config, "ldae": study.models.ldae.config}
    imported = {name: c["imported"] for name, c in configs.items() if "imported" in c}
    metrics = EvaluateMetrics()
    study = replace(study, models=RememberingInference.of(study.models))
    for name, evaluate in PARTS.items():
        part = evaluate(study)
        update = part.metrics if name == "reconstruction" else {name: part.metrics}
        document = metrics.model_dump() | {"imported": imported or None} | update
        metrics = EvaluateMetrics.model_validate(document)
        write_parquet(out / "per_scan" / f"{name}.parquet", part.per_scan)
        _write_arrays(out / "pictures" / f"{name}.npz", dict(part.pictures))
        write_json(out / "metrics.json", metrics.model_dump())
    return metrics


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)
