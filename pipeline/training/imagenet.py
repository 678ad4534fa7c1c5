"""ImageNet weights for the published encoder, from a file."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipeline.artefact import load_strict
from pipeline.nets.convnext import ConvNext, from_torchvision
from schemas.errors import ContractError

log = logging.getLogger(__name__)


def load_imagenet(backbone: ConvNext, weights: Path | None) -> None:
    """Load a ConvNeXt of torchvision, .pth or .safetensors; without a file, stay random and say so.

    Raises
    ------
    ContractError
        If the file is missing, no weights file, or of another architecture.
    """
    if weights is None:
        log.warning(
            "train_ldae.encoder.weights is not set: the ConvNeXt starts from RANDOM weights, not"
            " from ImageNet as published"
        )
        return
    try:
        if weights.suffix == ".safetensors":
            tensors = load_file(weights)
        else:
            tensors = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise ContractError(
            f"{weights}: expected ConvNeXt weights of torchvision (.pth or .safetensors):"
            f" {reason:.120}"
        ) from error
    load_strict(backbone, from_torchvision(tensors), source=weights)
    log.info("%s: ImageNet weights loaded", weights)
