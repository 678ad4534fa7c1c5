"""Write the autoencoder that training at 1.5 mm starts from: the one of 3 mm, on finer voxels.

Its first layer takes averages of eight voxels, its last one writes eight alike; in between it has
twice the channels, which compute the same until training tells them apart. Nothing else is new, so
that the first step already gives what the autoencoder of 3 mm gives.

Run: python -m recipes.bundled_ae_1_5mm.start VOLUMES OUT
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from pipeline.models.artefact import write_artefact
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import architecture, load_autoencoder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.runtime.digests import digest_of
from pipeline.stores.volumes import open_volumes

FINER = 2
"""Voxels a side of one of the coarse autoencoder's."""
WIDER = 2
"""Factor of the channels."""
ASYMMETRY = 0.3
"""Largest difference of the shares in which a channel's two copies are used."""


def main(volumes: Path, out: Path) -> None:
    """Write the model folder."""
    torch.manual_seed(0)
    coarse = load_autoencoder(bundled_autoencoder(), device=torch.device("cpu"))
    theirs = architecture(coarse.config)
    own = theirs | {
        "channels": tuple(WIDER * n for n in theirs["channels"]),
        "patch": FINER * theirs["patch"],
    }
    net = Autoencoder(**own)
    net.load_state_dict(
        {
            name: _grown(tensor, net.state_dict()[name], theirs["patch"])
            for name, tensor in coarse.net.state_dict().items()
        }
    )
    config = {
        "architecture": own,
        "grid": open_volumes(volumes).attributes.grid.document(),
        "params": {},
        "fingerprint": digest_of(["start of 1.5 mm", coarse.digest]),
        "started_from": coarse.digest,
    }
    write_artefact(
        out,
        kind="ae",
        tensors=net.state_dict(),
        config=config,
        metrics={},
        card="The autoencoder of 3 mm on voxels of 1.5 mm, not trained there.\n",
    )


def _grown(tensor: Tensor, wanted: Tensor, patch: int) -> Tensor:
    """Return a weight for twice the channels, or for voxels folded twice as far."""
    folded = patch**3
    for axis in range(min(tensor.dim(), 2)):
        own, asked = tensor.shape[axis], wanted.shape[axis]
        if own == asked:
            continue
        if own == folded and asked == own * FINER**3:
            tensor = tensor.index_select(axis, _coarse_voxel(patch))
            tensor = tensor / FINER**3 if axis == 1 else tensor
        else:
            tensor = tensor.repeat_interleave(WIDER, axis)
            if axis == 1:
                tensor = tensor * _shares(own)[None, :, None, None, None]
    return tensor


def _coarse_voxel(patch: int) -> Tensor:
    """Return, for each voxel of a fine patch, the number of the coarse voxel that it lies in."""
    at = torch.arange(FINER * patch) // FINER
    x, y, z = torch.meshgrid(at, at, at, indexing="ij")
    return ((x * patch + y) * patch + z).flatten()


def _shares(channels: int) -> Tensor:
    """Return the shares of both copies of each channel, which add up to 1."""
    first = 0.5 + ASYMMETRY * (torch.rand(channels) - 0.5)
    return torch.stack([first, 1 - first], dim=1).flatten()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
