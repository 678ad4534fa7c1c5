"""How much brighter or darker each region became: quick enough for a slider.

Intensity at the same place, not volume: a deformation (`pipeline regions`) takes seconds.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.imaging.brain import brain_of
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml
from pipeline.regions.meter import RegionMeter
from schemas.errors import ContractError
from schemas.grid import Grid

MEASURE = "brightness of the region's place, in percent of the brain's median; not volume"
MOST_BARS = 12
LEAST_VOXELS = 2.0
"""A region with less brain than this (voxels) has no bar."""

Volume = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class RegionBars:
    """Regions of the template's places on one grid, laid out once."""

    grid: Grid
    _shares: sparse.csr_array | None = None
    _names: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, before: Volume, after: Volume) -> dict[str, Any]:
        """Return the regions that change most from one volume (X, Y, Z) in [0, 1] to another.

        Raises
        ------
        ContractError
            If there is no atlas, or no region of it lies on the grid.
        """
        shares = self._regions()
        brain = brain_of(before)
        if not brain.any():
            raise ContractError("regions: the volume is empty")
        median = float(np.median(before[brain]))
        held = shares.multiply(brain.ravel()[None]).tocsr()
        voxels = np.asarray(held.sum(axis=1)).ravel()
        brighter = (100 * (after - before) / median).ravel()
        known = voxels >= LEAST_VOXELS
        if not known.any():
            raise ContractError("regions: no region of the atlas lies on the grid of these volumes")
        mean = np.divide(held @ brighter, voxels, out=np.zeros(len(voxels)), where=known)
        order = np.argsort(-np.abs(np.where(known, mean, 0)), kind="stable")[:MOST_BARS]
        return {
            "measure": MEASURE,
            "bars": [
                {"region": self._names[i], "percent": round(float(mean[i]), 3)}
                for i in order
                if known[i]
            ],
            "ventricles_ml": self._ventricles(before, after),
        }

    def _regions(self) -> sparse.csr_array:
        with self._lock:
            if self._shares is None:
                atlas = desikan_killiany()
                meter = RegionMeter(parcellation=atlas, grid=self.grid, own_regions=False)
                # Places of the template do not depend on the volume.
                self._shares = meter.regions_of(np.zeros(self.grid.shape, np.float32))
                self._names = atlas.names()
            return self._shares

    def _ventricles(self, before: Volume, after: Volume) -> list[float] | None:
        """Return the lateral ventricles (ml of template space) before and after."""
        affine = np.asarray(self.grid.affine, dtype=np.float64)
        levels = intensity_levels(before, affine)
        ml = [float(ventricle_ml(v, affine, levels=levels)) for v in (before, after)]
        return [round(value, 2) for value in ml] if np.isfinite(ml).all() else None
