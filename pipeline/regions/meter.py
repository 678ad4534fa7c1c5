"""Change of volume and of intensity of every region, between two volumes of one brain."""

from collections.abc import Sequence
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
from pipeline.imaging.deformation.growth import Field, volume_factor
from pipeline.imaging.deformation.syn import syn_deformation
from pipeline.imaging.deformation.within_person import deformations_along
from pipeline.imaging.ventricles import Levels, intensity_levels, ventricle_ml
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
class Before:
    """What is known of a volume that several are compared with."""

    regions: sparse.csr_array
    """`RegionMeter.regions_of` it."""
    levels: Levels
    ventricles_ml: float
    """Of template space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMeter:
    """Measures regions on one grid."""

    parcellation: Parcellation
    grid: Grid
    own_regions: bool = True
    """Find each person's own regions by a deformation to the template, instead of taking those of
    the template's places."""
    shares: dict[str, sparse.csr_array] = field(default_factory=dict)
    """Of the template's places: `atlas` and `tissue`, kept once computed."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Return voxel to MNI152 world (mm), (4, 4)."""
        return np.asarray(self.grid.affine, dtype=np.float64)

    def regions_of(self, before: Volume) -> sparse.csr_array:
        """Return the share of each voxel that each atlas region of this person holds."""
        if self.own_regions:
            return self.regions_along(syn_deformation(before, self.template(), self.affine))
        if "atlas" not in self.shares:
            self.shares["atlas"] = self.parcellation.shares_on(self.grid.shape, self.affine)
        return self.shares["atlas"]

    def template(self) -> Volume:
        """Return the stripped template, to which `regions_of` seeks the way."""
        template, inside = load_template(self.grid.as_params())
        return (template * inside).astype(np.float32)

    def regions_along(self, way: Field) -> sparse.csr_array:
        """Return the regions of a person from whom a displacement (mm) leads to the template."""
        return self.parcellation.shares_on(self.grid.shape, self.affine, way)

    def known_of(self, before: Volume, regions: sparse.csr_array | None = None) -> Before:
        """Return what several comparisons with one volume need of it."""
        levels = intensity_levels(before, self.affine)
        return Before(
            regions=self.regions_of(before) if regions is None else regions,
            levels=levels,
            ventricles_ml=ventricle_ml(before, self.affine, levels=levels),
        )

    def growth(self, before: Volume, course: Sequence[tuple[float, Volume]]) -> list[Volume]:
        """Return by how much (%) tissue grew to each volume of a course, where it was before.

        A course leads away from `before`, on the meter's grid: volumes with the numbers that tell
        how far along they lie, which rise from 0 or fall.

        Raises
        ------
        ScanError
            If a volume is empty.
        """
        brain, median = _brain_and_median(before)
        levelled = []
        for number, after in course:
            # Mean squares take a brighter brain for a larger one: the level is made equal.
            level = float(np.median(after[brain])) if brain.any() else median
            levelled.append((number, (after * (median / max(level, 1e-6))).astype(np.float32)))
        return [
            np.where(brain, 100 * (volume_factor(field, self.affine) - 1), 0).astype(np.float32)
            for field in deformations_along(before, levelled, self.affine)
        ]

    def change(
        self,
        before: Volume,
        after: Volume,
        *,
        known: Before | None = None,
        growth: Volume | None = None,
        head_per_template: float = 1.0,
    ) -> Change:
        """Return the change from one volume to another, both (X, Y, Z) in [0, 1] and stripped.

        Parameters
        ----------
        before, after
            On the meter's grid, in the same intensities.
        known
            `known_of(before)`, where several volumes are compared with one.
        growth
            That of `growth`, where it was measured.
        head_per_template
            Millilitres of the head for one of template space: volumes are told in those of the
            head. Percent are the same in both.

        Raises
        ------
        ScanError
            If a volume is empty, or no deformation is found.
        """
        own = self.known_of(before) if known is None else known
        brain, median = _brain_and_median(before)
        if growth is None:
            growth = self.growth(before, [(1.0, after)])[0]
        brighter = (100 * (after - before) / median).astype(np.float32)
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000 * head_per_template
        rows: list[dict[str, Any]] = []
        inside = brain.ravel().astype(np.float32)
        for kind, names, weights in (
            ("atlas", self.parcellation.names(), own.regions),
            ("tissue", list(self._tissues()), self._tissue_shares()),
        ):
            voxels = weights @ inside
            with np.errstate(invalid="ignore", divide="ignore"):
                grown = (weights @ (growth.ravel() * inside)) / voxels
                lit = (weights @ (brighter.ravel() * inside)) / voxels
            for name, count, percent, light in zip(names, voxels, grown, lit, strict=True):
                ml = float(count) * voxel_ml
                if ml >= LEAST_ML:
                    rows.append(_row(name, kind, ml, float(percent), float(light)))
        rows.append(self._ventricles(own, after, head_per_template))
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
        if "tissue" not in self.shares:
            masks = [mask.ravel() for mask in self._tissues().values()]
            stacked = np.array(masks) if masks else np.zeros((0, int(np.prod(self.grid.shape))))
            self.shares["tissue"] = sparse.csr_array(stacked.astype(np.float32))
        return self.shares["tissue"]

    def _ventricles(self, own: Before, after: Volume, head: float) -> dict[str, Any]:
        first = head * own.ventricles_ml
        last = head * ventricle_ml(after, self.affine, levels=own.levels)
        percent = 100 * (last / first - 1) if first > 0 else float("nan")
        return _row(VENTRICLES, "ventricles", first, percent, float("nan")) | {
            "volume_ml": last - first
        }


def _brain_and_median(volume: Volume) -> tuple[NDArray[np.bool_], float]:
    brain = brain_of(volume)
    return brain, float(np.median(volume[brain])) if brain.any() else 1.0


def _row(region: str, kind: str, ml: float, percent: float, light: float) -> dict[str, Any]:
    return {
        "region": region,
        "kind": kind,
        "ml": ml,
        "volume_percent": percent,
        "volume_ml": ml * percent / 100,
        "intensity_percent": light,
    }
