"""Whose latent is nearest: a made brain's own subject, or a training scan it copies."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from pipeline.evaluation.study import MAX_LATENTS, Study, spread

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Latents to search, and whose they are."""

    latents: Floats
    """(scan, latent), posterior means as stored: at z_0's voxels of unit variance air would count
    as much as brain."""
    subjects: tuple[str, ...]
    scan_ids: tuple[str, ...]

    @classmethod
    def of(cls, study: Study, scans: pd.DataFrame) -> "Neighbours":
        """Return the latents of scans, of at most MAX_LATENTS of them, evenly spread."""
        scans = spread(scans, MAX_LATENTS)
        scan_ids = tuple(scans["scan_id"].astype(str))
        latents = study.latents.load(scan_ids).mean.float().flatten(1).numpy()
        return cls(latents, tuple(scans["subject_id"].astype(str)), scan_ids)

    def distances(self, latents: Floats) -> NDArray[np.float64]:
        """Return the root mean square difference of latents (n, latent) to each, (n, scan)."""
        distances: NDArray[np.float64] = np.asarray(pairwise_distances(latents, self.latents))
        distances /= np.sqrt(self.latents.shape[1])
        return distances

    def nearest(self, latents: Floats) -> list[str]:
        """Return the subject of the nearest latent of each."""
        return [self.subjects[i] for i in self.distances(latents).argmin(axis=1)]
