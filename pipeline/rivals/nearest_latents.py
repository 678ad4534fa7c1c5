"""Nearest latents of generated brains: their own subject, or a training scan they copy."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from pipeline.stores.latents import LatentStore

Floats = NDArray[np.float32]

MAX_LATENTS = 1000
"""Scans, evenly spread, whose latents are kept in memory to compare with."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Latents to search, and whose they are."""

    latents: NDArray[np.float16]
    """(scan, latent), posterior means as stored: at z_0's voxels of unit variance air would count
    as much as brain."""
    subjects: tuple[str, ...]
    scan_ids: tuple[str, ...]

    @classmethod
    def of(cls, store: LatentStore, scans: pd.DataFrame) -> "Neighbours":
        """Return the latents of all these scans: of a sample the nearest would mean nothing."""
        scan_ids = tuple(scans["scan_id"].astype(str))
        latents = [
            store.load(scan_ids[rows]).mean.half().flatten(1).numpy()
            for rows in _blocks(len(scan_ids))
        ]
        return cls(np.concatenate(latents), tuple(scans["subject_id"].astype(str)), scan_ids)

    def sample(self) -> Floats:
        """Return at most MAX_LATENTS of the latents, evenly spread, (scan, latent)."""
        rows = np.linspace(0, len(self.latents) - 1, min(len(self.latents), MAX_LATENTS))
        chosen: Floats = self.latents[rows.astype(int)].astype(np.float32)
        return chosen

    def distances(self, latents: Floats) -> NDArray[np.float64]:
        """Return the root mean square difference of latents (n, latent) to each, (n, scan)."""
        blocks = [
            pairwise_distances(latents, self.latents[rows].astype(np.float32))
            for rows in _blocks(len(self.latents))
        ]
        distances: NDArray[np.float64] = np.concatenate(blocks, axis=1)
        distances /= np.sqrt(self.latents.shape[1])
        return distances

    def nearest(self, latents: Floats, *, without: str | None = None) -> list[str]:
        """Return the subject of the nearest latent of each, of all scans but `without`."""
        distances = self.distances(latents)
        if without is not None:
            distances[:, [i for i, scan in enumerate(self.scan_ids) if scan == without]] = np.inf
        return [self.subjects[i] for i in distances.argmin(axis=1)]

    def scans_of(self, subject_id: str) -> int:
        """Return how many scans of a subject there are."""
        return self.subjects.count(subject_id)


def _blocks(count: int) -> list[slice]:
    return [slice(i, i + MAX_LATENTS) for i in range(0, count, MAX_LATENTS)]
