"""Networks with pretrained weights from the user's files: LPIPS, ConvNeXt, MedicalNet."""

import logging
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.models.artefact import load_strict
from pipeline.models.conversion.checkpoint import load_tensors
from pipeline.nets.convnext import ConvNext, from_torchvision
from pipeline.nets.lpips import Lpips

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def load_lpips(path: Path, *, device: torch.device) -> Lpips:
    """Load LPIPS (SqueezeNet) from the state dict of `lpips.LPIPS(net="squeeze")`.

    Raises
    ------
    ContractError
        If the file is missing, holds code, or its tensors do not fit.
    """
    net = Lpips()
    tensors = {k: v for k, v in load_tensors(path).items() if not re.match(r"lins\.", k)}
    load_strict(net, tensors, source=path)  # `lins` repeats lin0 to lin6
    return net.to(device)


def load_imagenet(backbone: ConvNext, weights: Path | None) -> None:
    """Load weights of a torchvision ConvNeXt, .pth or .safetensors; warn if no file is given.

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


def load_medicalnet(path: Path, device: torch.device) -> nn.Module:
    """Return MedicalNet's ResNet-10 without its head (`resnet_10_23dataset.pth`).

    Raises
    ------
    ContractError
        If the file is not readable or holds other weights.
    """
    from monai.networks.nets.resnet import resnet10

    weights = load_tensors(path)
    net = resnet10(
        spatial_dims=3,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
    )
    # Counters of batches seen are not among MedicalNet's, and play no part in evaluation.
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    backbone = {
        name.removeprefix("state_dict.").removeprefix("module."): value
        for name, value in weights.items()
        if "conv_seg" not in name
    }
    load_strict(net, counters | backbone, source=path)
    frozen: nn.Module = net.requires_grad_(False).eval().to(device)
    return frozen


@torch.inference_mode()
def medicalnet_features(
    net: nn.Module, volumes: Float[Tensor, "N X Y Z"], device: torch.device
) -> Floats:
    """Return pooled features (n, 512) of volumes, each standardised over its brain first."""
    features = []
    for volume in volumes:
        brain = volume[volume > 0]
        x = (volume - brain.mean()) / brain.std().clamp(min=1e-6)
        features.append(net(x[None, None].to(device)).flatten().double().cpu().numpy())
    return np.stack(features)
