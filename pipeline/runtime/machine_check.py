"""Checks of this computer: memory, disk, libraries, weights, GPU; each with its remedy."""

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from pipeline.runtime.devices import available_cpus, native_bf16
from schemas.errors import ContractError

GIB = 2**30
ENOUGH_MEMORY_GIB = 6
ENOUGH_DISK_GIB = 5
DISK_PER_SCAN_MB = 2
"""A volume at the published grid, compressed, and its latents."""

PARTS = ("torch", "monai", "zarr", "antspyx", "deepbet", "nilearn", "distributed", "dvc")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `remedy` is empty where nothing is to be done."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def check_machine(folder: Path) -> Iterator[Check]:
    """Yield the checks for a study in `folder`, the quick ones first."""
    yield Check("Python", "ok", platform.python_version())
    yield _memory()
    yield _disk(folder)
    for part in PARTS:
        yield _installed(part)
    yield _weights()
    yield _converter()
    yield _device()


def _memory() -> Check:
    memory = psutil.virtual_memory()
    cores = available_cpus()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free, {cores} cores"
    if memory.available < ENOUGH_MEMORY_GIB * GIB:
        remedy = "close other programs, or give fewer --workers (3 GiB each)"
        return Check("Memory", "warn", text, remedy)
    return Check("Memory", "ok", text)


def _disk(folder: Path) -> Check:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / GIB:.0f} GiB free, room for {free // (DISK_PER_SCAN_MB * 1_000_000):,} scans"
    if free < ENOUGH_DISK_GIB * GIB:
        return Check("Disk", "warn", text, f"free {ENOUGH_DISK_GIB} GiB, or move the study")
    return Check("Disk", "ok", text)


def _installed(part: str) -> Check:
    try:
        return Check(part, "ok", metadata.version(part))
    except metadata.PackageNotFoundError:
        remedy = f"pip install -c requirements.lock {part}"
        return Check(part, "fail", "not installed", remedy)


def _weights() -> Check:
    try:
        from deepbet.utils import DATA_PATH
    except ImportError as error:
        return Check("Skull stripping", "fail", str(error), "pip install deepbet")
    weights = sorted(Path(DATA_PATH).rglob("*.pt"))
    if not weights:
        remedy = "pip install --force-reinstall deepbet"
        return Check("Skull stripping", "fail", "none", remedy)
    return Check("Skull stripping", "ok", ", ".join(w.name for w in weights))


def _converter() -> Check:
    try:
        from pipeline.runtime.dcm2niix import find_dcm2niix

        return Check("dcm2niix", "ok", find_dcm2niix())
    except (ImportError, ContractError):
        remedy = "only for DICOM: pip install 'ldae-pipeline[dicom]'"
        return Check("dcm2niix", "warn", "not installed", remedy)


def _device() -> Check:
    import torch

    if not torch.cuda.is_available():
        remedy = "fine for the demo; for more, a GPU with 8 GiB and a CUDA build of torch"
        slow = "" if native_bf16(torch.device("cpu")) else "; the CPU has no bf16, trains in fp32"
        return Check("GPU", "warn", f"none{slow}", remedy)
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    text = ", ".join(f"{p.name}, {p.total_memory / GIB:.0f} GiB" for p in names)
    return Check("GPU", "ok", text)
