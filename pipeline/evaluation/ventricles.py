"""Ventricle volume by a simple rule: fluid-dark voxels in a box around the lateral ventricles."""

import numpy as np
from numpy.typing import NDArray

BOX_MM = ((-26.0, 26.0), (-45.0, 25.0), (-2.0, 30.0))
"""x, y, z bounds (MNI152 world) that hold most of the lateral ventricles and little else dark."""
FLUID_SHARES = (0.3, 0.7)
"""Shares of the brain's median intensity: all fluid below the first, none above the second."""


def ventricle_box(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which voxels of a grid (X, Y, Z) lie in the box; `affine` is RAS without rotation."""
    inside = np.ones(shape, bool)
    for axis, (low, high) in enumerate(BOX_MM):
        world = affine[axis, axis] * np.arange(shape[axis]) + affine[axis, 3]
        wanted = (world >= low) & (world <= high)
        inside &= np.expand_dims(wanted, tuple(other for other in range(3) if other != axis))
    return inside


def brain_median(volume: NDArray[np.floating]) -> float:
    """Return the median intensity of a stripped volume's brain."""
    return float(np.median(volume[volume > 0.1])) if (volume > 0.1).any() else float("nan")


def ventricle_ml(
    volume: NDArray[np.floating], affine: NDArray[np.float64], *, median: float
) -> float:
    """Return the fluid in the box (ml); voxels between fluid and tissue count in part.

    A measure to compare volumes of one scan with: other fluid in the box is counted too. Give all
    of them the `brain_median` of the same volume, so that the rule does not move with them.
    """
    none, full = FLUID_SHARES[1] * median, FLUID_SHARES[0] * median
    fluid = np.clip((none - volume) / (none - full), 0, 1)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return float(fluid[ventricle_box(volume.shape, affine)].sum()) * voxel_ml
