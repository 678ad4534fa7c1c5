"""Bring volumes from the MNI152 grid back to the native space of a scan."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.applications.inputs import NativeSpace
from pipeline.imaging.brain import brain_of
from pipeline.imaging.geometry import FWHM_TO_SIGMA, resample_masked, sample, smooth_for
from pipeline.imaging.header import zooms_of
from pipeline.imaging.intensities import restore
from pipeline.imaging.read import read_scan
from pipeline.imaging.register import correlation

__all__ = ["brain_of", "overlay", "read_native", "resolution", "to_native"]


def to_native(
    volume: NDArray[np.float32],
    mask: NDArray[np.bool_],
    native: NativeSpace,
    grid_affine: NDArray[np.float64],
    *,
    difference: bool = False,
) -> NDArray[np.float32]:
    """Return a volume (X, Y, Z) in [0, 1] on the grid of the scan's file, in its intensities.

    Intensities are those of the file where its bias field is known, else of the bias-corrected
    scan; 0 outside the brain. A `difference` of two intensities keeps its 0; one between
    standardised intensities (`imaging.intensities`) is brought back by the range alone.
    """
    if not mask.any():
        return np.zeros(native.native_shape, np.float32)
    grid, shape = native.native_to_mni @ native.native_affine, native.native_shape
    inside = resample_masked(volume, mask, grid_affine, grid, shape)[1]
    # The brain is continued beyond its rim, so that cubic splines do not ring there.
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    smooth = smooth_for(volume[tuple(nearest)], grid_affine, float(zooms_of(grid).mean()))
    values = np.clip(sample(smooth, grid_affine, grid, shape, order=3), 0, 1)
    low, high = native.intensity_range
    # Level 1 of 255 is the lowest of the brain, 255 the highest.
    share = (255 * values - (0 if difference else 1)) / 254
    if native.tissue_levels is not None and not difference:
        share = restore(share, native.tissue_levels)
    intensities = (0 if difference else low) + share * (high - low)
    if native.bias is not None:
        intensities *= native.bias.on(native.native_affine, shape)
    return np.where(inside, intensities, 0).astype(np.float32)


def overlay(
    generated: NDArray[np.float32],
    image: NDArray[np.float32],
    sigma: NDArray[np.float64] | None = None,
) -> float:
    """Return the correlation of a volume in native space with its file, where it is not 0.

    With `sigma` (voxels, one an axis) of both after a Gaussian, within the same voxels: how well
    they lie on each other, whatever detail and noise the file has that the volume cannot hold.
    """
    inside = generated != 0
    if sigma is not None:
        generated, image = (_within(volume, inside, sigma) for volume in (generated, image))
    return correlation(generated, image, inside)


def resolution(zooms: float, native_affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sigma (native voxels) of a Gaussian as wide at half its height as `zooms` mm."""
    return np.asarray(zooms * FWHM_TO_SIGMA / zooms_of(native_affine), np.float64)


def _within(
    volume: NDArray[np.float32], inside: NDArray[np.bool_], sigma: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Smooth the inside by itself: what lies outside has no weight."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(inside, volume, 0).astype(np.float32), sigma)
    return np.asarray(smooth / np.maximum(weight, np.finfo(np.float32).tiny), np.float32)


def read_native(path: Path) -> NDArray[np.float32]:
    """Return the voxels (X, Y, Z) of a file that was found good before."""
    return read_scan(path, max_bytes=sys.maxsize).data
