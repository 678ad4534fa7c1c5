"""Which scans and which noise belong to a step: functions of (seed, step) alone.

Nothing depends on what ran before, so a resumed run repeats an uninterrupted one exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from pipeline.compute import seed_from


class StepStream(IterableDataset[int]):
    """Yields step numbers; what a step trains on follows from its number."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


def batch_rows(step: int, *, num_rows: int, batch_size: int, seed: int) -> Tensor:
    """Return the rows of a step: every epoch is a fresh permutation, batches run across epochs."""
    first = step * batch_size
    rows: list[int] = []
    for epoch in range(first // num_rows, (first + batch_size - 1) // num_rows + 1):
        generator = torch.Generator().manual_seed(seed_from("epoch", seed, epoch))
        order = torch.randperm(num_rows, generator=generator).tolist()
        start = max(first - epoch * num_rows, 0)
        rows += order[start : first + batch_size - epoch * num_rows]
    return torch.tensor(rows)


def step_generator(step: int, *, seed: int, device: torch.device) -> torch.Generator:
    """Return the generator of a step's noise, timesteps and posterior draws."""
    return torch.Generator(device).manual_seed(seed_from("noise", seed, step))
