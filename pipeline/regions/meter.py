"""Change of volume and of intensity of every region, between two volumes of one brain."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

from pipeline.imaging.atlas.mni152 import grid_affine, load_template, load_tissues
from pipeline.imaging.atlas.parcellation import Parcellation
from pipeline.imaging.brain import brain_of
from pipeline.imaging.deformation.growth import volume_factor
from pipeline.imaging.deformation.syn import syn_deformation
from pipeline.imaging.deformation.within_person import deformation_between
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml
from schemas.grid import Grid

Volume = Float[np.ndarray, "X Y Z"]

LEAST_ML = 0.05
"""A region of which less lies in the brain is not told."""
VENTRICLES = "lateral ventricles, by their darkness"
"""Row measured by the rule of `imaging.ventricles`; all others by the deformation."""
COLUMNS = ("region", "kind", "ml", "volume_percent", "volume_ml", "intensity_percent")
"""Of a table of changes: `kind` is `atlas`, `tissue` or `ventricles`; `ml` is the volume before;
`volume_percent` and `volume_ml` how much it grew, by the Jacobian determinant of the deformation;
`intensity_percent` how much brighter the same place became, in percent of the brain's median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed between two volumes."""

    table: pd.DataFrame
    """COLUMNS, a row a region."""
    volume_percent: Volume
    """Local growth of tissue (%), where it was before."""
    intensity_percent: Volume
    """Brighter (above 0) or darker, at the same place (% of the brain's median)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMeter:
    """Measures regions on one grid."""

    parcellation: Parcellation
    grid: Grid
    own_regions: bool = True
    """Find each person's own regions by a deformation to the template, instead of taking those of
    the template's places."""
    shares: dict[str, sparse.csr_array] = field(default_factory=dict)
    """Of the template's places, kept once computed."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Return voxel to MNI152 world (mm), (4, 4)."""
        return np.asarray(self.grid.affine, dtype=np.float64)

    def regions_of(self, before: Volume) -> sparse.csr_array:
        """Return the share of each voxel that each atlas region of this person holds."""
        if self.own_regions:
            template, inside = load_template(self.grid.as_params())
            stripped = (template * inside).astype(np.float32)
            way = syn_deformation(before, stripped, self.affine)
            return self.parcellation.shares_on(self.grid.shape, self.affine, way)
        if "atlas" not in self.shares:
            self.shares["atlas"] = self.parcellation.shares_on(self.grid.shape, self.affine)
        return self.shares["atlas"]

    def change(
        self,
        before: Volume,
        after: Volume,
        *,
        regions: sparse.csr_array | None = None,
        head_per_template: float = 1.0,
    ) -> Change:
        """Return the change from one volume to another, both (X, Y, Z) in [0, 1] and stripped.

        Parameters
        ----------
        before, after
            On the meter's grid, in the same intensities.
        regions
            `regions_of(before)`, where several volumes are compared with one.
        head_per_template
            Millilitres of the head for one of template space: volumes are told in those of the
            head. Percent are the same in both.

        Raises
        ------
        ScanError
            If a volume is empty, or no deformation is found.
        """
        shares = self.regions_of(before) if regions is None else regions
        brain = brain_of(before)
        median = float(np.median(before[brain])) if brain.any() else 1.0
        # Mean squares take a brighter brain for a larger one: the overall level is made equal.
        level = float(np.median(after[brain])) if brain.any() else median
        levelled = (after * (median / max(level, 1e-6))).astype(np.float32)
        field = deformation_between(before, levelled, self.affine)
        factor = volume_factor(field, self.affine)
        growth = np.where(brain, 100 * (factor - 1), 0).astype(np.float32)
        brighter = (100 * (after - before) / median).astype(np.float32)
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000 * head_per_template
        rows: list[dict[str, Any]] = []
        inside = brain.ravel()
        for kind, names, weights in (
            ("atlas", self.parcellation.names(), shares),
            ("tissue", list(self._tissues()), self._tissue_shares()),
        ):
            held = weights.multiply(inside[None]).tocsr()
            voxels = np.asarray(held.sum(axis=1)).ravel()
            with np.errstate(invalid="ignore", divide="ignore"):
                grown = (held @ growth.ravel()) / voxels
                lit = (held @ brighter.ravel()) / voxels
            for name, count, percent, light in zip(names, voxels, grown, lit, strict=True):
                ml = float(count) * voxel_ml
                if ml >= LEAST_ML:
                    rows.append(_row(name, kind, ml, float(percent), float(light)))
        rows.append(self._ventricles(before, after, head_per_template))
        return Change(
            table=pd.DataFrame(rows, columns=list(COLUMNS)),
            volume_percent=growth,
            intensity_percent=np.where(brain | brain_of(after), brighter, 0).astype(np.float32),
        )

    def _tissues(self) -> dict[str, NDArray[np.bool_]]:
        """Return where the template surely holds each tissue; none on a grid not of its centre."""
        params = self.grid.as_params()
        if not np.allclose(grid_affine(params), self.affine):
            return {}
        masks = load_tissues(params)
        return {f"{name}, sure in the template": mask for name, mask in masks.items()}

    def _tissue_shares(self) -> sparse.csr_array:
        masks = [mask.ravel() for mask in self._tissues().values()]
        stacked = np.array(masks) if masks else np.zeros((0, int(np.prod(self.grid.shape))))
        return sparse.csr_array(stacked.astype(np.float32))

    def _ventricles(self, before: Volume, after: Volume, head: float) -> dict[str, Any]:
        levels = intensity_levels(before, self.affine)
        first, last = (head * ventricle_ml(v, self.affine, levels=levels) for v in (before, after))
        percent = 100 * (last / first - 1) if first > 0 else float("nan")
        return _row(VENTRICLES, "ventricles", first, percent, float("nan")) | {
            "volume_ml": last - first
        }


def _row(region: str, kind: str, ml: float, percent: float, light: float) -> dict[str, Any]:
    return {
        "region": region,
        "kind": kind,
        "ml": ml,
        "volume_percent": percent,
        "volume_ml": ml * percent / 100,
        "intensity_percent": light,
    }
