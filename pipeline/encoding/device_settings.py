"""Settings of a device for encoding: arithmetic, batch size, threads."""

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.frozen import FrozenAutoencoder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.runtime.devices import available_memory, native_bf16
from pipeline.stores.build_units import EncodeSettings
from pipeline.stores.latents import MEMORY_SHARE
from pipeline.stores.volumes import VolumeStore
from schemas.params import EncodeParams
from schemas.section import Precision

log = logging.getLogger(__name__)

MAX_BATCH = {"cuda": 16, "cpu": 4}
"""Largest batch sizes; larger ones are no faster."""
LIVE_TENSORS = 4.0
"""Memory at the peak of a forward pass, in units of the input and output of its widest layer.
Measured on the CPU with four scans a batch, two autoencoders: 2.8 and 3.6 (fp32), 1.3 and 1.9
(bf16)."""
AGREEMENT = 0.02
"""Largest relative error of bf16 latents at which bf16 is chosen."""


def scan_bytes(autoencoder: FrozenAutoencoder, grid: tuple[int, ...]) -> int:
    """Return the memory (bytes, fp32) that one scan takes at the peak of its forward pass.

    It is found from shapes alone, without computing.
    """
    net = copy.deepcopy(autoencoder.net).to("meta")
    if isinstance(net, Autoencoder) and net.boxes is not None:
        grid, net.boxes, net.box = net.boxes, None, None  # one box at a time
    widest = 0

    def measure(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal widest
        tensors = [x for x in (*inputs, output) if isinstance(x, Tensor)]
        widest = max(widest, sum(x.nbytes for x in tensors))

    for module in net.modules():
        if not list(module.children()):
            module.register_forward_hook(measure)
    with torch.inference_mode():
        net.encode(torch.empty(1, 1, *grid, device="meta"))
    return int(LIVE_TENSORS * widest)


def find_batch_size(
    autoencoder: FrozenAutoencoder, grid: tuple[int, ...], device: torch.device, *, sharing: int = 1
) -> int:
    """Return the largest power of two of scans that fits in the memory of `sharing` processes."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    fits = int(MEMORY_SHARE * free / sharing / scan_bytes(autoencoder, grid))
    largest = MAX_BATCH.get(device.type, MAX_BATCH["cpu"])
    size = 1 << (max(1, min(fits, largest)).bit_length() - 1)
    log.info("%s: %d scans a batch (%.1f GB free)", device, size, free / 1e9)
    return size


def find_precision(
    autoencoder: FrozenAutoencoder, sample: np.ndarray, device: torch.device
) -> Precision:
    """Return bf16 if the device computes it and its latents of `sample` agree with fp32, else fp32.

    Parameters
    ----------
    sample
        uint8 (N, X, Y, Z).
    """
    if not native_bf16(device):
        return "fp32"
    from pipeline.encoding.batch_encoder import BatchEncoder

    means = {}
    for precision in ("fp32", "bf16"):
        encoder = BatchEncoder(autoencoder, batch_size=1, precision=precision, device=device)
        means[precision] = encoder.encode(sample, advance=lambda _: None)[0].astype(np.float64)
    error = np.linalg.norm(means["bf16"] - means["fp32"]) / np.linalg.norm(means["fp32"])
    chosen: Precision = "bf16" if error <= AGREEMENT else "fp32"
    log.info("%s: bf16 latents differ from fp32 by %.2g, taking %s", device, error, chosen)
    return chosen


def choose_settings(
    autoencoder: FrozenAutoencoder,
    device: torch.device,
    volumes: VolumeStore,
    params: EncodeParams,
    *,
    sharing: int = 1,
) -> tuple[str, EncodeSettings]:
    """Return precision, batch size and threads: those of `params`, else chosen for the device.

    `sharing` processes encode on the device at the same time.
    """
    precision, batch_size = params.precision, params.batch_size
    if precision == "auto":
        precision = find_precision(autoencoder, volumes.read("volume", slice(0, 1)), device)
    if batch_size == "auto":
        grid = tuple(volumes.array("volume").shape[1:])
        batch_size = find_batch_size(autoencoder, grid, device, sharing=sharing)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return precision, EncodeSettings(batch_size=batch_size, threads=threads)
