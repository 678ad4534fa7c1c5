"""Load frozen models for use: weights from their artefact, gradients off, evaluation mode."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.artefact import load_strict, read_artefact
from pipeline.nets.autoencoder import Autoencoder


@dataclass(frozen=True, slots=True)
class FrozenAutoencoder:
    """A trained autoencoder and where it came from."""

    net: Autoencoder
    digest: str
    grid: dict[str, Any]
    config: dict[str, Any]


def load_autoencoder(path: Path, *, device: torch.device) -> FrozenAutoencoder:
    """Load a frozen autoencoder.

    Raises
    ------
    ContractError
        If the folder holds no autoencoder or its weights do not fit.
    """
    artefact = read_artefact(path, kind="ae")
    net = Autoencoder(**architecture(artefact.config))
    load_strict(net, artefact.tensors, source=path)
    net.requires_grad_(False).eval().to(device)
    return FrozenAutoencoder(net, artefact.digest, artefact.config["grid"], artefact.config)


def architecture(config: dict[str, Any]) -> dict[str, Any]:
    """Return the network's arguments from an artefact's config, lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config["architecture"].items()}
