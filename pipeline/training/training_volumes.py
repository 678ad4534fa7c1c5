"""Volumes that training reads: by scan of a split, or again and again from the device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.runtime.devices import available_memory
from pipeline.stores.latents import MEMORY_SHARE
from pipeline.stores.volumes import VolumeStore


class ScanVolumes:
    """Volumes of a split's scans, for semantic encoders that read voxels."""

    def __init__(self, store: VolumeStore, scan_ids: Sequence[str]) -> None:
        self.store = store
        self.scan_ids = scan_ids

    def take(self, index: Tensor) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volumes of scans, by their numbers in the split, in [0, 1]."""
        return self.store.load_unit_interval([self.scan_ids[i] for i in index.tolist()])


class ResidentVolumes:
    """Volumes of a store on a device; each is read and brought there once, while memory lasts.

    Kept as uint8, as stored: half of the free memory holds 14,000 volumes of 128×160×128 on an
    80 GB GPU. A volume without room is read at every use.
    """

    def __init__(self, store: VolumeStore, device: torch.device) -> None:
        self.store = store
        self.device = device
        self._resident: dict[int, Tensor] = {}
        self._free_bytes = int(MEMORY_SHARE * _free_memory(device))

    def take(self, rows: Sequence[int]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volumes of these rows of the store in [0, 1]."""
        return torch.stack([self._volume(row) for row in rows])[:, None].float() / 255

    def _volume(self, row: int) -> Tensor:
        resident = self._resident.get(row)
        if resident is not None:
            return resident
        volume = torch.from_numpy(self.store.read("volume", row)).to(self.device)
        if volume.nbytes <= self._free_bytes:
            self._free_bytes -= volume.nbytes
            self._resident[row] = volume
        return volume


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
