"""Latents read from the store chunk by chunk, for those that do not fit in memory."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.stores.latents import sample_posterior

Chunk = tuple[np.ndarray, np.ndarray]


class ChunkedPosteriors(Protocol):
    """What streaming needs of a store: rows of posteriors, so many a chunk."""

    @property
    def chunk_scans(self) -> int:
        """Scans a chunk, the unit that is read at once."""

    def __len__(self) -> int: ...

    def rows_of(self, scan_ids: Sequence[str]) -> list[int]:
        """Return the rows of these scans."""

    def read_finite(self, name: str, rows: slice) -> np.ndarray:
        """Read rows of `posterior_mean` or `posterior_logvar`."""


class StreamedLatents:
    """Posteriors of a set of scans, read chunk by chunk on demand.

    The interface is that of `Latents`. The chunks used last stay in memory. Training takes scans
    in an order that stays within a window of that many chunks (`pipeline.training.batches`), so
    that each chunk is read once an epoch.
    """

    def __init__(
        self, store: ChunkedPosteriors, scan_ids: Sequence[str], *, chunks_in_memory: int
    ) -> None:
        self.store = store
        self.scan_ids = list(scan_ids)
        self.device: torch.device | None = None
        self.chunks_in_memory = chunks_in_memory
        self._rows = np.array(store.rows_of(scan_ids), dtype=np.int64)
        self._recent_chunks: OrderedDict[int, Chunk] = OrderedDict()

    def __len__(self) -> int:
        return len(self.scan_ids)

    @property
    def chunks(self) -> tuple[int, ...]:
        """The store's chunk of each scan."""
        return tuple((self._rows // self.store.chunk_scans).tolist())

    def to(self, device: torch.device) -> "StreamedLatents":
        """Return itself, with batches on this device from now on."""
        self.device = device
        return self

    def take_mean(self, index: Tensor) -> Float[Tensor, "B C X Y Z"]:
        """Return posterior means as float32."""
        return self._take(index)[0]

    def sample_posterior(
        self, index: Tensor, *, generator: torch.Generator
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return one fresh posterior sample a scan, float32."""
        return sample_posterior(*self._take(index), generator=generator)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (index, mean, logvar) of all scans, float16, a chunk at a time."""
        chunks = np.array(self.chunks)
        for chunk in np.unique(chunks):
            index = np.flatnonzero(chunks == chunk)
            at = self._rows[index] - chunk * self.store.chunk_scans
            mean, logvar = self._chunk(int(chunk))
            yield torch.from_numpy(index), torch.from_numpy(mean[at]), torch.from_numpy(logvar[at])

    def _take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        picked = []
        for row in self._rows[index.cpu().numpy()].tolist():
            chunk, at = divmod(row, self.store.chunk_scans)
            mean, logvar = self._chunk(chunk)
            picked.append((mean[at], logvar[at]))
        means, logvars = zip(*picked, strict=True)
        stacked = torch.from_numpy(np.stack([np.stack(means), np.stack(logvars)]))
        mean, logvar = stacked.to(self.device).float()
        return mean, logvar

    def _chunk(self, chunk: int) -> Chunk:
        if chunk in self._recent_chunks:
            self._recent_chunks.move_to_end(chunk)
        else:
            while len(self._recent_chunks) >= self.chunks_in_memory:
                self._recent_chunks.popitem(last=False)
            start = chunk * self.store.chunk_scans
            rows = slice(start, min(start + self.store.chunk_scans, len(self.store)))
            self._recent_chunks[chunk] = (
                self.store.read_finite("posterior_mean", rows),
                self.store.read_finite("posterior_logvar", rows),
            )
        return self._recent_chunks[chunk]
