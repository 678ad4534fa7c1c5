"""Copy a finished model into a study, and write one for the package."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.models.artefact import Artefact, write_artefact
from pipeline.models.model_folder import CARD, CONFIG, METRICS, WEIGHTS, read_config
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import few
from schemas.errors import ContractError

log = logging.getLogger(__name__)

LOG_FILE = "log.csv"
EMPTY_LOG = "step,seconds,loss\n"


def write_bundled(
    artefact: Artefact,
    tensors: dict[str, Tensor],
    out: Path,
    *,
    config: dict[str, Any],
    most: int,
    card: str | None,
) -> None:
    """Write a model of at most `most` bytes for the package, with `tensors` for its weights.

    `config` is added to the model's own; `card` replaces its card.

    Raises
    ------
    ContractError
        If a tensor is not finite, or they are larger than that.
    """
    source = artefact.path
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ContractError(f"{source}: {few(broken)}: not finite in float16; train it anew")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > most:
        raise ContractError(
            f"{source}: {size / 1e6:.1f} MB in float16, expected at most {most / 1e6:.0f} MB;"
            " train fewer channels"
        )
    kept = {k: v for k, v in artefact.config.items() if k not in ("weights_sha256", "made_by")}
    write_artefact(
        out,
        kind=str(artefact.config["kind"]),
        tensors=tensors,
        config=kept | config | {"float32_sha256": artefact.digest},
        metrics=read_metrics(source),
        card=card if card is not None else (source / CARD).read_text(),
    )
    if (source / LOG_FILE).is_file():
        write_atomic(out / LOG_FILE, (source / LOG_FILE).read_text())


def copy_model(source: Path, out: Path, *, config: dict[str, Any]) -> dict[str, Any]:
    """Copy a finished model byte for byte, but for its config; return its metrics.

    The caller holds the lock of `out`.

    Raises
    ------
    ContractError
        If the metrics of the source are missing or damaged.
    """
    metrics = read_metrics(source)
    shutil.rmtree(out.with_name(out.name + ".training"), ignore_errors=True)
    for name in (WEIGHTS, CARD):
        write_atomic(out / name, (source / name).read_bytes())
    log = source / LOG_FILE
    write_atomic(out / LOG_FILE, log.read_text() if log.is_file() else EMPTY_LOG)
    write_json(out / METRICS, metrics)
    write_json(out / CONFIG, config)
    return metrics


def warn_of_replaced(out: Path, source: Path, digest: str, *, key: str = "weights_sha256") -> None:
    """Warn if `out` holds another model, or an unfinished training, that will be replaced.

    `digest` is that of the model in `source`; under `key` the config of its copy has it.
    """
    work = out.with_name(out.name + ".training")
    if work.is_dir():
        log.warning("%s: checkpoints of an unfinished training are discarded", work)
    try:
        former = read_config(out / CONFIG)
    except ContractError:
        return
    if former.get(key) != digest:
        log.warning("%s: held another model, replaced by that of %s", out, source)


def read_metrics(model: Path) -> dict[str, Any]:
    """Read the metrics of a model folder.

    Raises
    ------
    ContractError
        If they are missing or damaged.
    """
    path = model / METRICS
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: expected the metrics of a model; restore it") from error
    return values
