"""latents.zarr: posterior mean and log-variance of every scan, and loading them for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.stores.builder import ArraySpec
from pipeline.stores.reading import OpenStore
from schemas.errors import ContractError

LOGVAR_RANGE = (-30.0, 20.0)
"""As in MONAI's AutoencoderKL; keeps float16 finite."""


def latent_arrays(shape: tuple[int, ...], *, rows_per_chunk: int) -> list[ArraySpec]:
    """Return the arrays of a latent store for latents of shape (channel, x, y, z)."""
    return [
        ArraySpec(
            name=name,
            row_shape=shape,
            dtype="float16",
            dimension_names=("channel", "x", "y", "z"),
            rows_per_chunk=rows_per_chunk,
            fill_value=float("nan"),
            compressors=(
                BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=2),
                Crc32cCodec(),
            ),
        )
        for name in ("posterior_mean", "posterior_logvar")
    ]


@dataclass(frozen=True, slots=True)
class Latents:
    """A set of scans' posteriors, whole in memory (host or device), float16."""

    scan_ids: list[str]
    mean: Float[Tensor, "N C X Y Z"]
    logvar: Float[Tensor, "N C X Y Z"]

    def __len__(self) -> int:
        return len(self.scan_ids)

    def take_mean(self, index: Tensor) -> Float[Tensor, "B C X Y Z"]:
        """Return posterior means as float32."""
        return self.mean[index].float()

    def draw(self, index: Tensor, *, generator: torch.Generator) -> Float[Tensor, "B C X Y Z"]:
        """Return one fresh posterior draw a scan, float32."""
        mean = self.mean[index].float()
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + (0.5 * self.logvar[index].float()).exp() * noise


class LatentStore(OpenStore):
    """An open latents.zarr."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, kind="latents")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channel, x, y, z)."""
        return tuple(self.array("posterior_mean").shape[1:])

    def load(self, scan_ids: Sequence[str], *, device: torch.device | None = None) -> Latents:
        """Load the posteriors of these scans at once.

        Raises
        ------
        ContractError
            If a scan is not in the store, a chunk is damaged or missing, or a value is not finite.
        """
        missing = [s for s in scan_ids if s not in self.row_of]
        if missing:
            raise ContractError(
                f"{self.path}: {len(missing)} scans not in the store, first {missing[0]};"
                " encode them"
            )
        rows = [self.row_of[s] for s in scan_ids]
        loaded = {}
        for name in ("posterior_mean", "posterior_logvar"):
            first, last = min(rows, default=0), max(rows, default=-1)
            values = self.read(name, slice(first, last + 1))[[row - first for row in rows]]
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            if bad.size:
                raise ContractError(
                    f"{self.path}: {name} of {scan_ids[bad[0]]} is not finite"
                    f" ({bad.size} scans); run `pipeline verify`"
                )
            loaded[name] = torch.from_numpy(values).to(device)
        return Latents(list(scan_ids), loaded["posterior_mean"], loaded["posterior_logvar"])


def open_latents(path: Path) -> LatentStore:
    """Open a complete latent store for reading."""
    return LatentStore(path)
