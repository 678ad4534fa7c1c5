"""Grids of volumes: shape and affine, validated once."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.section import Section, Triple

ZOOMS_TOLERANCE_MM = 0.01
"""Voxel sizes that differ by less are equal."""
AFFINE_TOLERANCE = 1e-3
"""Affines whose entries (mm) differ by less are equal."""

Row = tuple[float, float, float, float]


class GridParams(Section):
    """The MNI152 grid that every volume is resampled to (RAS), centred on the template brain."""

    shape: Triple = (56, 72, 64)
    """Voxels along x, y, z."""
    zooms: Annotated[float, Field(gt=0)] = 3.0
    """Isotropic voxel size (mm)."""


class Grid(BaseModel):
    """A voxel grid in MNI152 world coordinates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Triple
    """Voxels along x, y, z."""
    affine: tuple[Row, Row, Row, Row]
    """Voxel indices to MNI152 world (mm)."""
    orientation: Literal["RAS"] = "RAS"

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Return the voxel size along each axis (mm)."""
        columns = zip(*(row[:3] for row in self.affine[:3]), strict=True)
        x, y, z = (sum(value**2 for value in column) ** 0.5 for column in columns)
        return x, y, z

    def same_zooms(self, other: "Grid") -> bool:
        """Return whether both grids have voxels of one size, within ZOOMS_TOLERANCE_MM."""
        pairs = zip(self.zooms, other.zooms, strict=True)
        return all(abs(a - b) <= ZOOMS_TOLERANCE_MM for a, b in pairs)

    def same_voxels(self, other: "Grid") -> bool:
        """Return whether both grids have the same voxels, within AFFINE_TOLERANCE."""
        pairs = zip(sum(self.affine, ()), sum(other.affine, ()), strict=True)
        return self.shape == other.shape and all(abs(a - b) <= AFFINE_TOLERANCE for a, b in pairs)

    @property
    def centre(self) -> tuple[float, float, float]:
        """Return the point in the middle of the grid (mm, MNI152 world)."""
        middle = [(n - 1) / 2 for n in self.shape]
        x, y, z = (
            sum(a * b for a, b in zip(row, middle, strict=False)) + row[3]
            for row in self.affine[:3]
        )
        return x, y, z

    def as_params(self) -> GridParams:
        """Return the preprocessing parameters of this shape and voxel size."""
        return GridParams(shape=self.shape, zooms=self.zooms[0])

    def document(self) -> dict[str, Any]:
        """Return the grid as JSON values, as stores and model folders record it."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        return f"{times(self.shape)} of {times(self.zooms)} mm"


def times(values: tuple[float, ...]) -> str:
    """Return numbers joined by ×, as in 56×72×64."""
    return "×".join(f"{value:g}" for value in values)
