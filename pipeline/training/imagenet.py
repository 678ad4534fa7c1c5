"""ImageNet weights for the published encoder, from a file."""

import logging
from pathlib import Path

from pipeline.artefact import load_strict
from pipeline.foreign.checkpoint import load_tensors
from pipeline.nets.convnext import ConvNext, from_torchvision

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
    tensors = load_tensors(weights)
    load_strict(backbone, from_torchvision(tensors), source=weights)
    log.info("%s: ImageNet weights loaded", weights)
