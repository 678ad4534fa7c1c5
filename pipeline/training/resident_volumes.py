"""Volumes that training reads again and again, kept where they are used."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.runtime.devices import available_memory
from pipeline.stores.latents import MEMORY_SHARE
from pipeline.stores.volumes import VolumeStore


class HeldVolumes:
    """Volumes of a store on a device; each is read and brought there once, while memory lasts.

    Held as uint8, as stored: half of the free memory holds 14,000 volumes of 128×160×128 on an
    80 GB GPU. What does not fit any more is read whenever it is asked for.
    """

    def __init__(self, store: VolumeStore, device: torch.device) -> None:
        self.store = store
        self.device = device
        self._held: dict[int, Tensor] = {}
        self._room = int(MEMORY_SHARE * _free(device))

    def take(self, rows: Sequence[int]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volumes of these rows in [0, 1]."""
        return torch.stack([self._volume(row) for row in rows])[:, None].float() / 255

    def _volume(self, row: int) -> Tensor:
        held = self._held.get(row)
        if held is not None:
            return held
        volume = torch.from_numpy(self.store.read("volume", row)).to(self.device)
        if volume.nbytes <= self._room:
            self._room -= volume.nbytes
            self._held[row] = volume
        return volume


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
