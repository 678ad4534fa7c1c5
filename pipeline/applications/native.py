"""From the MNI152 grid back to where a scan was acquired."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.applications.sources import NativeSpace
from pipeline.imaging.geometry import resample_masked

BRAIN_LEVEL = 0.1
"""Intensity (0 to 1) above which a voxel is surely brain; darker ones only inside of such."""


def brain_of(
    volume: NDArray[np.float32], known: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return the brain of a made volume (X, Y, Z): its largest bright piece with holes filled.

    `known` is the brain mask of the scan that it was made from; it is added, since dark rims of
    fluid belong to the brain too.
    """
    pieces, count = ndimage.label(volume > BRAIN_LEVEL)
    mask = np.zeros(volume.shape, bool) if known is None else known.copy()
    if count:
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        mask |= ndimage.binary_fill_holes(pieces == largest)
    return mask


def to_native(
    volume: NDArray[np.float32],
    mask: NDArray[np.bool_],
    native: NativeSpace,
    grid_affine: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return a volume (X, Y, Z) in [0, 1] on the grid of the scan's file, in its intensities.

    Intensities are those of the bias-corrected scan; 0 outside the brain.
    """
    values, inside = resample_masked(
        volume, mask, grid_affine, native.native_to_mni @ native.native_affine, native.native_shape
    )
    low, high = native.intensity_range
    # Level 1 of 255 is the lowest of the brain, 255 the highest.
    share = (255 * values - 1) / 254
    return np.where(inside, low + share * (high - low), 0).astype(np.float32)
