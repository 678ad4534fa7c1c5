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

    z_0: Floats
    """(scan, latent), standardised posterior means."""
    subjects: tuple[str, ...]
    scan_ids: tuple[str, ...]

    @classmethod
    def of(cls, study: Study, scans: pd.DataFrame) -> "Neighbours":
        """Return the latents of scans, of at most MAX_LATENTS of them, evenly spread."""
        scans = spread(scans, MAX_LATENTS)
        z_0 = study.z_0(scans["scan_id"].astype(str)).flatten(1).cpu().numpy()
        return cls(z_0, tuple(scans["subject_id"].astype(str)), tuple(scans["scan_id"].astype(str)))

    def distances(self, z_0: Floats) -> NDArray[np.float64]:
        """Return the root mean square difference of latents (n, latent) to each, (n, scan)."""
        distances: NDArray[np.float64] = np.asarray(pairwise_distances(z_0, self.z_0))
        distances /= np.sqrt(self.z_0.shape[1])
        return distances

    def nearest(self, z_0: Floats) -> list[str]:
        """Return the subject of the nearest latent of each."""
        return [self.subjects[i] for i in self.distances(z_0).argmin(axis=1)]
