"""deepbet's networks on the processor or a GPU (Fisch et al. 2024; weights in its wheel)."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from deepbet.bet import BrainExtraction
from filelock import FileLock

from pipeline.runtime.devices import native_bf16, resolve_device, torch_threads

log = logging.getLogger(__name__)

THRESHOLD = 0.5
"""Probability from which on a voxel is brain."""


class _InBf16(torch.nn.Module):
    """A network under bf16 autocast: float32 in, float32 out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        with torch.autocast(volume.device.type, torch.bfloat16):
            probability: torch.Tensor = self.network(volume)
        return probability.float()


def find_brain(data: npt.NDArray[np.float32], device: str) -> npt.NDArray[np.bool_]:
    """Return deepbet's brain mask (X, Y, Z) of a RAS head, computed on a device.

    On a GPU the processes of one user take turns, so that one copy of the network's memory is
    enough; a head that does not fit there is computed on the processor.

    Raises
    ------
    AssertionError, ValueError, IndexError, RuntimeError
        As deepbet does, if it finds no brain.
    """
    where = resolve_device(device)
    if where.type != "cpu":
        try:
            with _turn_on(where):
                return _mask(load_deepbet(str(where)), data)
        except torch.OutOfMemoryError:
            log.warning("%s: too little memory for this head; stripped on the processor", where)
    return _mask(load_deepbet("cpu"), data)


@lru_cache(maxsize=2)
def load_deepbet(device: str) -> Any:
    """Return deepbet with its networks on a device.

    The network that finds the brain takes bf16 where the device computes that itself; the one that
    finds the box around it keeps float32, so that both precisions see the same box.
    """
    where = torch.device(device)
    deepbet = BrainExtraction(no_gpu=True)
    deepbet.model, deepbet.bbox_model = deepbet.model.to(where), deepbet.bbox_model.to(where)
    if native_bf16(where):
        deepbet.model = _InBf16(deepbet.model)
    return deepbet


def _mask(deepbet: Any, data: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    with torch_threads(1):
        return np.asarray(deepbet.postprocess(deepbet.run_model(data) > THRESHOLD), dtype=bool)


@contextmanager
def _turn_on(device: torch.device) -> Iterator[None]:
    """Wait for the other processes on a GPU, and leave no cached memory behind."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    name = f"ldae-{user}-{device.type}-{device.index or 0}.lock"
    with FileLock(Path(tempfile.gettempdir()) / name):
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
