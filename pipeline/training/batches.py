"""Which scans and which noise belong to a step: functions of (seed, step) alone.

Nothing depends on what ran before, so a resumed run repeats an uninterrupted one exactly.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from pipeline.runtime.digests import seed_from


class StepStream(IterableDataset[int]):
    """Yields step numbers; the batch of a step follows from its number."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


WINDOW_CHUNKS = 16
"""Chunks whose scans are shuffled together. Fixed, so that the order never depends on memory."""


def batch_rows(
    step: int,
    *,
    num_rows: int,
    batch_size: int,
    seed: int,
    chunks: tuple[int, ...] | None = None,
) -> Tensor:
    """Return the rows of a step: every epoch is a fresh permutation, batches run across epochs.

    `chunks` is the chunk that holds each row. With more than `WINDOW_CHUNKS` of them, an epoch
    shuffles the chunks, and the rows inside each window of so many chunks: nearly as random, and
    every chunk is read once. The order is the same whether the latents are in memory or not.
    """
    first = step * batch_size
    rows: list[int] = []
    for epoch in range(first // num_rows, (first + batch_size - 1) // num_rows + 1):
        order = _epoch_order(num_rows, seed, epoch, chunks)
        start = max(first - epoch * num_rows, 0)
        rows += order[start : first + batch_size - epoch * num_rows]
    return torch.tensor(rows)


@lru_cache(maxsize=4)
def _epoch_order(num_rows: int, seed: int, epoch: int, chunks: tuple[int, ...] | None) -> list[int]:
    generator = torch.Generator().manual_seed(seed_from("epoch", seed, epoch))
    order = torch.randperm(num_rows, generator=generator)
    if chunks is not None:
        names, chunk_of = np.unique(chunks, return_inverse=True)
        if len(names) > WINDOW_CHUNKS:
            window_of = torch.randperm(len(names), generator=generator) // WINDOW_CHUNKS
            windows = window_of[torch.from_numpy(chunk_of)[order]]
            order = order[windows.argsort(stable=True)]
    rows: list[int] = order.tolist()
    return rows


def step_generator(step: int, *, seed: int, device: torch.device) -> torch.Generator:
    """Return the generator of a step's noise, timesteps and posterior draws."""
    return torch.Generator(device).manual_seed(seed_from("noise", seed, step))
