"""Devices, precision, processors and memory of the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ParamsError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises
    ------
    ParamsError
        If the device asked for is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "," in name:
        raise ParamsError(
            f"--device {name}: this command runs on one device; only encode and verify take several"
        )
    expected = ParamsError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise expected from error
    if device.type != "cuda" and name != "cpu":
        raise expected
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParamsError(
            f"--device {name}: no such GPU ({torch.cuda.device_count()} found); use --device auto"
        )
    return device


def resolve_devices(names: str) -> "list[torch.device]":
    """Return the devices of a comma-separated list; `auto` is every GPU, else the CPU.

    Raises
    ------
    ParamsError
        If a device asked for is not there.
    """
    import torch

    if names == "auto" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return [resolve_device(name.strip()) for name in names.split(",")]


def native_bf16(device: "torch.device") -> bool:
    """Return whether the device computes bf16 itself.

    Emulated, it is slower than fp32: 55 times in a training step on a processor with AVX2 alone.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def takes_bf16(precision: str, device: "torch.device") -> bool:
    """Return whether `auto`, `bf16` or `fp32` means bf16 autocast on this device."""
    return precision == "bf16" or (precision == "auto" and native_bf16(device))


def available_cpus() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with this many threads in the block, and as before after it.

    On the processor the number decides the order of sums, and with it the last bits.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_memory() -> int:
    """Return the memory (bytes) that this process may still take, container limits included."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return free
    return min(free, max(limit - used, 0))
