"""Strip a head that lies askew: turn it upright, strip it there, bring the mask back."""

import numpy as np
import numpy.typing as npt
from scipy.linalg import polar

from pipeline.imaging.atlas.mni152 import GRID_CENTRE
from pipeline.imaging.brain import deepbet_mask
from pipeline.imaging.geometry import sample
from pipeline.imaging.header import Affine, zooms_of

UPRIGHT_FOV = (200.0, 260.0, 260.0)
"""Field of view of the upright copy (mm): a head with some neck."""
UPRIGHT_DROP = 20.0
"""How much lower than the brain the middle of the head is (mm)."""
UPRIGHT_ZOOMS = (1.0, 2.0)
"""Bounds of the upright copy's voxel size (mm)."""


def upright_mask(
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    affine: Affine,
    pose: Affine,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.bool_], Affine]:
    """Return deepbet's mask of a head after turning it as the template lies, and that turn.

    deepbet was trained on heads in the usual pose: turned by 60 degrees, it takes the neck for
    brain. `pose` (native world to MNI152 world, mm) was searched with the doubtful `mask`, which is
    good enough for that.

    Raises
    ------
    ScanError
        If deepbet finds no brain in the upright copy either.
    """
    turn = _rotation_about(mask, affine, pose)
    zooms = float(np.clip(zooms_of(affine).min(), *UPRIGHT_ZOOMS))
    size = np.round(np.asarray(UPRIGHT_FOV) / zooms).astype(int)
    grid = np.diag([zooms, zooms, zooms, 1.0])
    centre = np.asarray(GRID_CENTRE) - [0, 0, UPRIGHT_DROP]
    grid[:3, 3] = centre - zooms * (size - 1) / 2
    shape = (int(size[0]), int(size[1]), int(size[2]))
    upright = sample(data, affine, np.asarray(np.linalg.inv(turn) @ grid), shape)
    brain = deepbet_mask(upright, device).astype(np.float32)
    native = sample(brain, grid, np.asarray(turn @ affine), _shape(data))
    return np.asarray(native >= 0.5), turn


def _rotation_about(mask: npt.NDArray[np.bool_], affine: Affine, pose: Affine) -> Affine:
    """Return the rotation of an affine, with its translation at the middle of the mask."""
    rotation = polar(pose[:3, :3])[0]
    middle = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    turn = np.eye(4)
    turn[:3, :3] = rotation
    turn[:3, 3] = pose[:3, :3] @ middle + pose[:3, 3] - rotation @ middle
    return turn


def _shape(data: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    return int(data.shape[0]), int(data.shape[1]), int(data.shape[2])
