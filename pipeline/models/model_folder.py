"""Model folders as files: what is in one, its config, and whether one may be written there.

Nothing here reads weights, so that a command which only asks does not wait for torch.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.runtime.progress import few
from schemas.errors import ContractError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
METRICS = "metrics.json"
PARTS = frozenset((WEIGHTS, METRICS, "log.csv", "pictures", "tensorboard", "dvclive"))
"""Files that training writes to a model folder before the config."""


def check_model_folder(out: Path, *, kind: str | None) -> None:
    """Refuse to write a model of a kind into a folder that holds other files or another kind.

    Allowed are a folder that does not exist or is empty, a model folder of that kind, and the files
    of a training that was stopped. None stands for a kind that is not known yet.

    Raises
    ------
    ContractError
        Naming what the folder holds.
    """
    try:
        names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        if out.is_file():
            raise ContractError(f"{out}: a file; choose a folder for --out") from error
        return  # it does not exist
    # Weights are written before the card and the config: a card without weights is another file.
    of_model = {CARD, CONFIG} if WEIGHTS in names else set()
    if CONFIG in names:
        try:
            config = read_config(out / CONFIG)
        except ContractError:
            pass  # a damaged config, which will be replaced
        else:
            if "weights_sha256" in config:
                _check_kind(out, config.get("kind"), kind)
                return
            of_model = set()  # of other software
    others = sorted(names - PARTS - of_model)
    if others:
        raise ContractError(
            f"{out}: holds other files than a model's ({few(others, 3)}); choose an empty or a new"
            " folder for --out"
        )


def _check_kind(out: Path, held: str | None, kind: str | None) -> None:
    if None not in (held, kind) and held != kind:
        raise ContractError(
            f"{out}: holds a model of kind {held!r}, which one of kind {kind!r} would replace;"
            " choose another folder for --out, or remove this one"
        )


def finished_metrics(path: Path, *, kind: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the metrics of a finished model with this fingerprint, or None."""
    try:
        config = read_config(path / CONFIG)
        metrics: dict[str, Any] = json.loads((path / METRICS).read_text())
    except (ContractError, OSError, ValueError):
        return None
    same = config.get("kind") == kind and config.get("fingerprint") == fingerprint
    return metrics if same else None


def read_config(path: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises
    ------
    ContractError
        If it is no JSON object.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ContractError(f"{path}: no model's {CONFIG}; restore the folder") from error


def check_artefact(path: Path, *, kind: str) -> dict[str, Any]:
    """Return the config of a model folder without reading its weights.

    Raises
    ------
    ContractError
        If the folder is missing or incomplete, or of another kind.
    """
    try:
        config = read_config(path / CONFIG)
        (path / WEIGHTS).stat()
    except (ContractError, OSError) as error:
        raise ContractError(
            f"{path}: expected a model folder of kind {kind} ({CONFIG}, {WEIGHTS}); train one with"
            f" `pipeline train-{kind}`, or give that of a study: --{kind} STUDY/models/{kind}"
        ) from error
    if config.get("kind") != kind:
        raise ContractError(f"{path}: a model of kind {config.get('kind')!r}, expected {kind!r}")
    return config
