"""Features of MedicalNet's ResNet-10 (Chen et al. 2019), where the user has its weights."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from monai.networks.nets.resnet import resnet10
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn

from pipeline.artefact import load_strict
from pipeline.foreign.checkpoint import load_tensors

Floats = NDArray[np.float64]


def load_medicalnet(path: Path, device: torch.device) -> nn.Module:
    """Return the network without its head; weights as published (`resnet_10_23dataset.pth`).

    Raises
    ------
    ContractError
        If the file is not readable or holds other weights.
    """
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
    own = {
        name.removeprefix("state_dict.").removeprefix("module."): value
        for name, value in weights.items()
        if "conv_seg" not in name
    }
    load_strict(net, counters | own, source=path)
    frozen: nn.Module = net.requires_grad_(False).eval().to(device)
    return frozen


@torch.inference_mode()
def medicalnet_features(
    net: nn.Module, volumes: Float[Tensor, "N X Y Z"], device: torch.device
) -> Floats:
    """Return pooled features (n, 512); each volume is standardised over its brain first."""
    features = []
    for volume in volumes:
        brain = volume[volume > 0]
        x = (volume - brain.mean()) / brain.std().clamp(min=1e-6)
        features.append(net(x[None, None].to(device)).flatten().double().cpu().numpy())
    return np.stack(features)


def frechet_distance(x: Floats, y: Floats) -> float:
    """Return the Fréchet distance of two Gaussians (Heusel et al. 2017) fitted to features.

    Biased upwards where there are fewer brains than features: compare like with like.
    """
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(cov_x @ cov_y)
    return float(means + np.trace(cov_x + cov_y - 2 * np.real(root)))
