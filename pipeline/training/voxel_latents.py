"""Volumes in the place of latents: a diffusion autoencoder of voxels trains on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.models.frozen import VOXELS
from pipeline.nets.autoencoder import EXACT_LOGVAR
from pipeline.stores.latents import Latents, LatentStore, bytes_of_latents
from pipeline.stores.volumes import ROWS_PER_SHARD, VolumeStore


class VoxelsAsLatents(VolumeStore):
    """An open volumes.zarr, each volume its own latent of one channel, known exactly.

    It has all that training reads of a latent store.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        digests = self.attributes.digests | {"autoencoder": VOXELS}
        self.attributes = self.attributes.model_copy(update={"digests": digests})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channel, x, y, z)."""
        return (1, *self.array("volume").shape[1:])

    @property
    def chunk_scans(self) -> int:
        """Scans a shard, the unit that is read at once."""
        return ROWS_PER_SHARD

    def bytes_of(self, num_scans: int) -> int:
        """Return the memory that so many scans take (bytes)."""
        return bytes_of_latents(self.latent_shape, num_scans)

    def load(self, scan_ids: Sequence[str], *, device: torch.device | None = None) -> Latents:
        """Load these volumes at once, in [0, 1].

        Raises
        ------
        ContractError
            If a scan is not in the store, or a chunk is damaged or missing.
        """
        rows = self.rows_of(scan_ids)
        shape = (0, *self.latent_shape)
        read = [self.read_finite("posterior_mean", slice(row, row + 1)) for row in rows]
        mean = torch.from_numpy(np.concatenate([np.empty(shape, np.float16), *read])).to(device)
        chunks = tuple(row // self.chunk_scans for row in rows)
        return Latents(list(scan_ids), mean, torch.full_like(mean, EXACT_LOGVAR), chunks)

    def read_finite(self, name: str, rows: slice) -> np.ndarray:
        """Read volumes as posterior means, or the log-variance of what is known exactly.

        Raises
        ------
        ContractError
            If a chunk is damaged or missing.
        """
        volumes = self.read("volume", rows)[:, None]
        if name == "posterior_logvar":
            return np.full(volumes.shape, EXACT_LOGVAR, np.float16)
        return (volumes / np.float32(255)).astype(np.float16)


TrainingStore = LatentStore | VoxelsAsLatents
"""A store that stages 1 and 2 train on."""
