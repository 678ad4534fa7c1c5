"""Read the files of the published LDAE: decoder, semantic encoder, training checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipeline.models.conversion.checkpoint import check_sums, load_tensors
from pipeline.models.conversion.published_layout import BRANCH, STEM
from pipeline.runtime.digests import digest_file
from schemas.errors import ContractError

Weights = Literal["ema", "raw"]
"""Weights taken from a training checkpoint: the running average, or those of the last step."""
ROLES = {"denoiser": ("decoder", "unet"), "encoder": ("encoder",)}
"""Network → its prefixes in a training checkpoint."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WRAPPER = "state_dict."
AUTOENCODER = ("encoder.blocks.", "encoder.conv_in.")
"""An autoencoder's encoder and decoder are no parts of a training checkpoint of the LDAE."""


@dataclass(frozen=True, slots=True)
class NetworkTensors:
    """The tensors of one network under their names in the file."""

    path: Path
    tensors: Mapping[str, Tensor]
    training: bool
    """Whether they come from a training checkpoint."""

    def source(self) -> dict[str, str]:
        """Return the file's name and digest."""
        return {"file": self.path.name, "sha256": digest_file(self.path)}


def read_decoder(path: Path, weights: Weights) -> NetworkTensors:
    """Return the tensors of the denoiser and, if present, of the gradient branch.

    Raises
    ------
    ContractError
        If the file is damaged, holds code, or something else.
    """
    part = _part(path, "denoiser", weights)
    if STEM not in part.tensors and not any(k.startswith("input_blocks.") for k in part.tensors):
        raise ContractError(
            f"{path}: no decoder of the published LDAE ({STEM}), but {_describe(part.tensors)}"
        )
    return part


def read_encoder(path: Path, weights: Weights) -> NetworkTensors:
    """Return the tensors of the semantic encoder.

    Raises
    ------
    ContractError
        If the file is damaged, holds code, or something else.
    """
    part = _part(path, "encoder", weights)
    if not any(key.startswith(("soft_attention.", "cross_attention.")) for key in part.tensors):
        raise ContractError(
            f"{path}: no semantic encoder of the published LDAE (soft_attention.…), but"
            f" {_describe(part.tensors)}"
        )
    return part


def holds_encoder(path: Path) -> bool:
    """Return whether a training checkpoint holds a semantic encoder beside its denoiser."""
    keys = [key.removeprefix(WRAPPER) for key in load_tensors(path)]
    return any(key.startswith(("encoder.soft", "ema_encoder.soft")) for key in keys)


def _part(path: Path, role: str, weights: Weights) -> NetworkTensors:
    if path.is_dir():
        raise ContractError(f"{path}: a folder; expected a file, .pth, .ckpt or .safetensors")
    every = {key.removeprefix(WRAPPER): tensor for key, tensor in load_tensors(path).items()}
    known = [f"{average}{name}." for names in ROLES.values() for name in names
             for average in ("ema_", "")]  # fmt: skip
    present = [prefix for prefix in known if any(key.startswith(prefix) for key in every)]
    autoencoder = any(key.startswith(AUTOENCODER) for key in every)
    if not present or STEM in every or autoencoder:
        return NetworkTensors(path, every, training=False)
    average = "ema_" if weights == "ema" else ""
    asked = [f"{average}{name}." for name in ROLES[role]]
    prefix = next((p for p in asked if p in present), None)
    if prefix is None:
        listed = ", ".join(present)
        other = "" if average else "ema_"
        option = ""
        if any(f"{other}{name}." in present for name in ROLES[role]):
            option = f"; --weights {'raw' if average else 'ema'} takes those"
        raise ContractError(f"{path}: nothing of {' or '.join(asked)} in it, but {listed}{option}")
    picked = {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}
    return NetworkTensors(path, picked, training=True)


def _describe(tensors: Mapping[str, Tensor]) -> str:
    """Return in words the kind of network that tensors belong to."""
    signs = {
        STEM: "a decoder (were --decoder and --encoder swapped?)",
        "soft_attention.linear.weight": "a semantic encoder (were --decoder and --encoder"
        " swapped?)",
        "features.0.0.weight": "a ConvNeXt classifier as torchvision has it; it is where training"
        " starts (train_ldae.encoder.weights), no trained encoder",
        "encoder.conv_in.weight": "an autoencoder; see import-ae",
        "encoder.blocks.0.conv.weight": "an autoencoder; see import-ae",
        "conv_in.conv.weight": "a diffusion model of MONAI",
    }
    kind = next((words for key, words in signs.items() if key in tensors), None)
    if kind is None and any(key.startswith(BRANCH) for key in tensors):
        kind = "a gradient branch alone"
    return kind or (", ".join(list(tensors)[:3]) or "no tensor at all")


def check_weights(part: NetworkTensors, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are damaged, not finite, or no floating-point numbers.

    Raises
    ------
    ContractError
        Naming them.
    """
    check_sums(part.path)
    for key, value in tensors.items():
        if value.dtype not in FLOATS:
            raise ContractError(
                f"{part.path}: {key}: of type {value.dtype}, expected float16, bfloat16, float32 or"
                " float64; save the weights that were not quantised"
            )
    broken = [key for key, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise ContractError(f"{part.path}: {', '.join(broken[:5])}: not finite")
