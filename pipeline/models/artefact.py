"""Model folders: weights as safetensors, a JSON config with digests, metrics, a model card.

No file is unpickled, and loading is strict: a missing, extra or misshapen tensor is an error.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from pipeline import __version__
from pipeline.models.model_folder import (
    CARD,
    CONFIG,
    METRICS,
    WEIGHTS,
    check_artefact,
)
from pipeline.models.weights_file import write_weights
from pipeline.runtime.digests import digest_file
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import few
from schemas.errors import ContractError

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
