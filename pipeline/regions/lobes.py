"""Tissue of a few coarse regions in one volume: fast enough to be measured on every draw."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.imaging.ventricles import Levels, intensity_levels, ventricle_ml
from schemas.grid import Grid

LOBES = {
    "medial temporal": ("hippocampus", "amygdala", "entorhinal", "parahippocampal"),
    "temporal": (
        "bankssts", "fusiform", "inferiortemporal", "middletemporal", "superiortemporal",
        "temporalpole", "transversetemporal",
    ),
    "frontal": (
        "caudalmiddlefrontal", "lateralorbitofrontal", "medialorbitofrontal", "paracentral",
        "parsopercularis", "parsorbitalis", "parstriangularis", "precentral",
        "rostralmiddlefrontal", "superiorfrontal", "frontalpole",
    ),
    "parietal": (
        "inferiorparietal", "postcentral", "precuneus", "superiorparietal", "supramarginal",
    ),
    "occipital": ("cuneus", "lateraloccipital", "lingual", "pericalcarine"),
    "cingulate and insula": (
        "caudalanteriorcingulate", "isthmuscingulate", "posteriorcingulate",
        "rostralanteriorcingulate", "insula",
    ),
    "deep grey matter": ("thalamusproper", "caudate", "putamen", "pallidum", "accumbensarea"),
    "brainstem": ("brainstem",),
}  # fmt: skip
"""Coarse region to the regions of Desikan and Killiany in it, both sides."""
VENTRICLES = "lateral ventricles"
LEAST_ML = 1.0
"""A region of which the grid holds less is not told."""


@lru_cache(maxsize=4)
def lobe_shares(
    shape: tuple[int, int, int], rows: tuple[tuple[float, ...], ...]
) -> tuple[list[str], sparse.csr_array]:
    """Return names, and the share of each voxel of a grid that each coarse region holds.

    `rows` are those of the affine, voxel to MNI152 world (mm).
    """
    atlas, affine = desikan_killiany(), np.asarray(rows)
    own = atlas.shares_on(shape, affine)
    of_atlas = [name.rsplit("_", 1)[0] for name in atlas.names()]
    belongs = np.array([[name in members for name in of_atlas] for members in LOBES.values()])
    shares = sparse.csr_array(sparse.csr_array(belongs.astype(np.float64)) @ own)
    ml = np.asarray(shares.sum(axis=1)).ravel() * abs(np.linalg.det(affine[:3, :3])) / 1000
    there = np.flatnonzero(ml >= LEAST_ML)
    return [list(LOBES)[i] for i in there], shares[there]


def _rows(affine: Float[np.ndarray, "4 4"]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in affine)


@dataclass(frozen=True, slots=True)
class LobeMeter:
    """Measures coarse regions and the lateral ventricles on one grid."""

    grid: Grid

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Return voxel to MNI152 world (mm)."""
        return np.asarray(self.grid.affine, dtype=np.float64)

    @property
    def voxel_ml(self) -> float:
        """Return the volume of a voxel (ml)."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def measure(
        self, volume: Float[np.ndarray, "X Y Z"], levels: Levels | None = None
    ) -> dict[str, float]:
        """Return millilitres (of template space) of the ventricles and of each coarse region.

        Of a region its tissue: each voxel of the template's place counts by how far its intensity
        is from fluid to tissue. Shrinking tissue makes way for fluid, so this falls.

        Parameters
        ----------
        volume
            Stripped, in [0, 1].
        levels
            `intensity_levels` of the scan that the volume was made of; by default its own.
        """
        own = intensity_levels(volume, self.affine) if levels is None else levels
        found = {VENTRICLES: ventricle_ml(volume, self.affine, levels=own)}
        way = (volume - own.fluid) / max(own.tissue - own.fluid, 1e-6)
        names, shares = lobe_shares(self.grid.shape, _rows(self.affine))
        ml = self.voxel_ml * (shares @ np.clip(way, 0, 1).ravel())
        return found | dict(zip(names, map(float, ml), strict=True))
