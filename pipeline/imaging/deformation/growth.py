"""The change of volume that a deformation tells."""

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.header import Affine, zooms_of

Volume = NDArray[np.float32]
Field = NDArray[np.float32]
"""(X, Y, Z, 3): mm, RAS."""


def volume_factor(field: Field, affine: Affine) -> Volume:
    """Return by how much each voxel's tissue grows (above 1) or shrinks: det of the Jacobian."""
    zooms = zooms_of(affine)
    directions = affine[:3, :3] / zooms
    along = np.stack(np.gradient(field, *zooms, axis=(0, 1, 2)), axis=-1)
    # Axis i of the last one is the direction of voxel axis i. Turned into the world's, I + along Dᵀ
    # has the determinant of (along + D) Dᵀ; the triple product is faster than LAPACK.
    rows = along + directions
    product = (rows[..., 0, :] * np.cross(rows[..., 1, :], rows[..., 2, :])).sum(axis=-1)
    factor: Volume = (product * np.linalg.det(directions)).astype(np.float32)
    return factor
