"""Model folders: weights as safetensors, a JSON config with digests, metrics, a model card.

No file is unpickled, and loading is strict: a missing, extra or misshapen tensor is an error.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from pipeline import __version__
from pipeline.models.weights_file import write_weights
from pipeline.runtime.digests import digest_file
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import few
from schemas.errors import ContractError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
METRICS = "metrics.json"
PARTS = frozenset((WEIGHTS, METRICS, "log.csv", "pictures", "tensorboard", "dvclive"))
"""Files that training writes to a model folder before the config."""
MAPPED_FROM = 512_000_000
"""Weights files of this size (bytes) or more are mapped into memory and read when used."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model read from disk."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    mapped: bool = False
    """Whether the tensors are mapped pages of the file; a network then takes them over uncopied."""

    @property
    def digest(self) -> str:
        """sha256 of the weights file."""
        return str(self.config["weights_sha256"])


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


def write_artefact(
    path: Path,
    *,
    kind: str,
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    metrics: dict[str, Any],
    card: str,
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> str:
    """Write a model folder, the config last, and return the digest of its weights.

    `convert` is applied to each tensor as it is written.
    """
    digest = write_weights(path / WEIGHTS, tensors, convert=convert)
    write_atomic(path / CARD, card)
    write_json(path / METRICS, metrics)
    write_json(
        path / CONFIG,
        {"kind": kind, "made_by": f"ldae-pipeline {__version__}", "weights_sha256": digest}
        | config,
    )
    return digest


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


def read_artefact(path: Path, *, kind: str) -> Artefact:
    """Read a model folder.

    Raises
    ------
    ContractError
        If the folder is missing or incomplete, of another kind, or its weights are damaged.
    """
    config, weights = check_artefact(path, kind=kind), path / WEIGHTS
    mapped = weights.stat().st_size >= MAPPED_FROM
    data = b"" if mapped else weights.read_bytes()
    digest = digest_file(weights) if mapped else hashlib.sha256(data).hexdigest()
    if digest != config.get("weights_sha256"):
        raise ContractError(f"{weights}: damaged, its sha256 differs from {CONFIG}; restore it")
    try:
        return Artefact(path, config, load_file(weights) if mapped else load(data), mapped=mapped)
    except SafetensorError as error:
        raise ContractError(f"{weights}: no safetensors file ({error})") from error


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path, take: bool = False
) -> None:
    """Load every tensor into the module, float16 included.

    With `take` these tensors replace the module's (which may be on the device `meta`); only those
    of another dtype are copied.

    Raises
    ------
    ContractError
        Naming the keys that are missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    problems = [f"missing {k}" for k in expected.keys() - tensors.keys()]
    problems += [f"unexpected {k}" for k in tensors.keys() - expected.keys()]
    problems += [
        f"{k}: {tuple(tensors[k].shape)}, expected {tuple(v.shape)}"
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if problems:
        shown = few(sorted(problems), separator="; ")
        raise ContractError(
            f"{source}: {len(problems)} weights do not fit the architecture: {shown}"
        )
    with torch.no_grad():
        module.load_state_dict(
            {k: tensors[k].to(v.dtype) for k, v in expected.items()}, strict=True, assign=take
        )
