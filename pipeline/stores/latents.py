"""latents.zarr: posterior mean and log-variance of every scan, stored and loaded for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.stores.build_units import take_rows
from pipeline.stores.builder import ArraySpec
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError

if TYPE_CHECKING:  # a missing store is refused without torch, which takes seconds to import
    import torch
    from jaxtyping import Float
    from torch import Tensor

MEMORY_SHARE = 0.5
"""Share of the free memory that latents may take; networks and copies need the rest."""

LOAD_CHUNKS = 32
"""Chunks read at once: enough to keep Zarr's threads busy, in little memory."""

BLOCK_SCANS = 64
"""Scans in a block of `Latents.blocks`."""

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


def bytes_of_latents(shape: tuple[int, ...], num_scans: int) -> int:
    """Return the memory (bytes) of mean and log-variance of so many scans, float16."""
    return 2 * 2 * int(np.prod(shape)) * num_scans


def sample_posterior(
    mean: "Float[Tensor, 'B C X Y Z']",
    logvar: "Float[Tensor, 'B C X Y Z']",
    *,
    generator: "torch.Generator",
) -> "Float[Tensor, 'B C X Y Z']":
    """Return one fresh sample of each scan's posterior."""
    import torch

    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return mean + (0.5 * logvar).exp() * noise


@dataclass(frozen=True, slots=True)
class Latents:
    """Posteriors of a set of scans, whole in memory (host or device), float16."""

    scan_ids: list[str]
    mean: "Float[Tensor, 'N C X Y Z']"
    logvar: "Float[Tensor, 'N C X Y Z']"
    chunks: tuple[int, ...] | None = None
    """The store's chunk of each scan."""
    device: "torch.device | None" = None
    """Where batches go; None is where the latents are."""
    _batch: "dict[int, Tensor]" = field(default_factory=dict, init=False, repr=False, compare=False)
    """Buffer of the batch size used last: new memory for each batch would cost as much again."""

    def __len__(self) -> int:
        return len(self.scan_ids)

    def to(self, device: "torch.device") -> "Latents":
        """Return these latents with batches on the device, and all latents too if it has room."""
        if device.type == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info(device)
            if self.mean.nbytes + self.logvar.nbytes > free * MEMORY_SHARE:
                return replace(self, device=device)
        return replace(self, mean=self.mean.to(device), logvar=self.logvar.to(device))

    def take_mean(self, index: "Tensor") -> "Float[Tensor, 'B C X Y Z']":
        """Return posterior means as float32."""
        return self._take(self.mean, index)

    def sample_posterior(
        self, index: "Tensor", *, generator: "torch.Generator"
    ) -> "Float[Tensor, 'B C X Y Z']":
        """Return one fresh posterior sample a scan, float32."""
        return sample_posterior(
            self._take(self.mean, index), self._take(self.logvar, index), generator=generator
        )

    def blocks(self) -> "Iterator[tuple[Tensor, Tensor, Tensor]]":
        """Yield (index, mean, logvar) of all scans, float16, some scans at a time."""
        import torch

        for start in range(0, len(self), BLOCK_SCANS):
            mean, logvar = (x[start : start + BLOCK_SCANS] for x in (self.mean, self.logvar))
            yield torch.arange(start, start + len(mean)), mean, logvar

    def _take(self, values: "Tensor", index: "Tensor") -> "Tensor":
        import torch

        # Six times as fast as values[index] on the CPU.
        buffer = self._batch.get(len(index))
        if buffer is None:
            self._batch.clear()
            buffer = values.new_empty((len(index), *values.shape[1:]))
            self._batch[len(index)] = buffer
        taken = torch.index_select(values, 0, index.to(values.device), out=buffer)
        return taken.to(self.device, torch.float32, copy=True)


class LatentStore(OpenStore):
    """An open latents.zarr."""

    remedy = "encode them"

    def __init__(self, path: Path) -> None:
        super().__init__(path, kind="latents")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channel, x, y, z)."""
        return tuple(self.array("posterior_mean").shape[1:])

    def load(self, scan_ids: Sequence[str], *, device: "torch.device | None" = None) -> Latents:
        """Load the posteriors of these scans at once.

        Raises
        ------
        ContractError
            If a scan is not in the store, a chunk is damaged or missing, or a value is not finite.
        """
        import torch

        rows = self.rows_of(scan_ids)
        loaded = {}
        for name in ("posterior_mean", "posterior_logvar"):
            with self.reading(name):
                values = take_rows(self.array(name), rows, chunks_at_once=LOAD_CHUNKS)
            self.check_finite(name, values, rows)
            loaded[name] = torch.from_numpy(values).to(device)
        chunks = tuple((np.array(rows, dtype=np.int64) // self.chunk_scans).tolist())
        mean, logvar = loaded["posterior_mean"], loaded["posterior_logvar"]
        return Latents(list(scan_ids), mean, logvar, chunks)

    @property
    def chunk_scans(self) -> int:
        """Number of scans in a chunk."""
        return int(self.array("posterior_mean").chunks[0])

    def bytes_of(self, num_scans: int) -> int:
        """Return the memory (bytes) that `num_scans` scans take."""
        return bytes_of_latents(self.latent_shape, num_scans)

    def read_finite(self, name: str, rows: slice) -> np.ndarray:
        """Read rows of one array.

        Raises
        ------
        ContractError
            If a chunk is damaged or missing, or a value is not finite.
        """
        values = self.read(name, rows)
        self.check_finite(name, values, range(rows.start, rows.stop))
        return values

    def check_finite(self, name: str, values: np.ndarray, rows: Sequence[int]) -> None:
        """Refuse values that are not finite; `rows` are the rows of the array they belong to."""
        sums = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(sums))
        if bad.size:
            raise ContractError(
                f"{self.path}: {name} of {self.attributes.scan_ids[rows[bad[0]]]} is not"
                f" finite ({bad.size} scans); run `pipeline verify`"
            )


def open_latents(path: Path) -> LatentStore:
    """Open a complete latent store for reading."""
    return LatentStore(path)
