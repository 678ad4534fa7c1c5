"""Regular grids in template space (mm), and sampling of maps on them.

Axes: C maps, X Y Z voxels of their grid, I J K the points at which they are sampled.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from pipeline.imaging.atlas.tissue_maps import ORIGIN, SHAPE

Point = tuple[SupportsFloat, SupportsFloat, SupportsFloat]
"""Coordinates or extents (mm)."""
Maps = Float[Tensor, "C X Y Z"]
AnyMaps = Float[Tensor, "_ _ _ _"]
"""Maps of any number on any grid, for objects that hold several."""
Points = Float[Tensor, "I J K 3"]


@dataclass(frozen=True)
class MapGrid:
    """An axis-aligned RAS grid: voxel (0, 0, 0) lies at `origin` (mm), voxels are `zooms` mm."""

    origin: tuple[float, float, float]
    zooms: float
    shape: tuple[int, int, int]

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Open coordinate axes in mm, float32, broadcastable to `shape`."""
        x, y, z = (
            o + self.zooms * np.arange(n, dtype=np.float32)
            for o, n in zip(self.origin, self.shape, strict=True)
        )
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def points(self) -> Points:
        """Return the coordinates of every voxel (mm)."""
        return torch.stack(
            [torch.from_numpy(a).expand(*self.shape) for a in self.axes], dim=-1
        ).contiguous()


BRAIN_1MM = MapGrid(ORIGIN, 1.0, SHAPE)
"""MapGrid of the template maps (MNI152)."""
BRAIN = MapGrid((-96.0, -134.0, -100.0), 2.0, (97, 116, 110))
"""MapGrid of velocity fields and true volumes: the brain with room around it."""
HEAD = MapGrid((-98.0, -134.0, -152.0), 1.0, (197, 265, 269))
"""MapGrid of the head atlas: the brain, face and neck."""


def sample(maps: Maps, grid: MapGrid, points: Points) -> Float[Tensor, "C I J K"]:
    """Return maps on `grid` at points (mm), trilinear, zero outside."""
    last = torch.tensor(grid.shape, dtype=torch.float32) - 1
    unit = (points - torch.tensor(grid.origin)) * (2 / (grid.zooms * last)) - 1
    values: Tensor = grid_sample(maps[None], unit.flip(-1)[None], align_corners=True)[0]
    return values


def displaced(points: Points, displacement: Maps, grid: MapGrid) -> Points:
    """Return points + displacement(points), both mm; displacement is (3, x, y, z) on `grid`."""
    return points + sample(displacement, grid, points).movedim(0, -1)


def exponential(velocity: Maps, grid: MapGrid, points: Points, *, squarings: int = 5) -> Maps:
    """Return the displacement (mm) of the flow of a stationary velocity after unit time.

    Scaling and squaring (Arsigny et al. 2006). `points` are `grid.points()`, computed once by the
    caller.
    """
    displacement: Tensor = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + sample(
            displacement, grid, points + displacement.movedim(0, -1)
        )
    return displacement
