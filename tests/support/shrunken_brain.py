"""A brain in which tissue about a place shrinks by a known factor."""

import numpy as np
from scipy import ndimage

from pipeline.imaging.atlas.mni152 import grid_affine, mni_grid
from pipeline.imaging.atlas.parcellation import Parcellation
from schemas.grid import GridParams

PARAMS = GridParams(shape=(32, 40, 32), zooms=6.0)
GRID = mni_grid(PARAMS)
AFFINE = grid_affine(PARAMS)
CENTRE = np.array((-30.0, -20.0, 10.0))
"""Of what shrinks (mm)."""


def shrunken(volume, factor, reach=30.0):
    """Return a volume in which tissue about CENTRE shrinks by `factor`, less further away."""
    index = np.moveaxis(np.indices(volume.shape), 0, -1)
    world = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    away = world - CENTRE
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    # What is at x was at x + stretch · away: uniform up to half the reach, none beyond it.
    weight = np.clip(2 - 2 * distance / reach, 0, 1)
    source = world + (factor ** (-1 / 3) - 1) * weight * away
    back = np.linalg.inv(AFFINE)
    voxel = np.moveaxis(source @ back[:3, :3].T + back[:3, 3], -1, 0)
    return ndimage.map_coordinates(volume, voxel, order=1).astype(np.float32)


def ball_atlas():
    """Balls of 15 mm about CENTRE and its mirror image, and 2 mm voxels."""
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-96, -132, -90)
    index = np.moveaxis(np.indices((97, 120, 97)), 0, -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(index.shape[:3], np.int32)
    for label, sign in ((1, 1), (2, -1)):
        labels[np.linalg.norm(world - CENTRE * (sign, 1, 1), axis=-1) < 15] = label
    return Parcellation("balls", labels, affine, {1: "shrinks", 2: "stays"})
