"""Volumes of a split's scans, for semantic encoders that read voxels."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from pipeline.stores.volumes import VolumeStore


class ScanVolumes:
    """Reads volumes by the number of the scan in its split."""

    def __init__(self, store: VolumeStore, scan_ids: Sequence[str]) -> None:
        self.store = store
        self.scan_ids = scan_ids

    def take(self, index: Tensor) -> Float[Tensor, "B 1 X Y Z"]:
        """Return volumes in [0, 1]."""
        return self.store.load_unit_interval([self.scan_ids[i] for i in index.tolist()])
