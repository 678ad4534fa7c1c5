"""Sentences on imported weights: their files, digests and licence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.results import EvaluateMetrics

CONFIG = "config.json"
"""Of a model folder."""
TITLES = {"ae": "Autoencoder", "ldm": "Latent diffusion model", "ldae": "LDAE"}
SHOWN = 12
"""Characters of a digest that are shown."""


def imported_words(kind: str, imported: Mapping[str, Any]) -> str:
    """Return one sentence on an imported model: its files, their digests, its licence."""
    sources = imported.get("files") or {"weights": imported}
    files = ", ".join(
        f"{source.get('file', 'a file')} (sha256 {str(source.get('sha256', ''))[:SHOWN]})"
        for source in sources.values()
    )
    licence = imported.get("licence") or "that of the checkpoint"
    return (
        f"{TITLES.get(kind, kind)}: trained by others, imported from {files}; licence: {licence}."
    )


def started_elsewhere(models: Path | None) -> bool:
    """Return whether a stage of the study's LDAE went on from a finished model."""
    return any(_config(models, kind).get("started_from") for kind in ("ldm", "ldae"))


def _config(models: Path | None, kind: str) -> Mapping[str, Any]:
    """Return the config of a model of the study; empty where there is none to be read."""
    if models is None or not (models / kind / CONFIG).is_file():
        return {}
    try:
        config = json.loads((models / kind / CONFIG).read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def whose_weights(models: Path | None, evaluate: EvaluateMetrics | None) -> tuple[str, ...]:
    """Return a sentence for each imported model of a study's folder or of its evaluation."""
    imports: dict[str, Mapping[str, Any]] = dict((evaluate and evaluate.imported) or {})
    for kind in TITLES:
        imported = _config(models, kind).get("imported")
        if isinstance(imported, dict):
            imports[kind] = imported
    return tuple(imported_words(kind, imports[kind]) for kind in TITLES if kind in imports)
