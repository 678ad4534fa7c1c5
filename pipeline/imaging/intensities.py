"""From a brain's intensities to levels: by percentiles, then grey and white matter at fixed ones.

Landmark-based standardisation (Nyúl and Udupa 1999) with two landmarks: the medians of a scan where
the template surely holds grey and white matter. Linear between darkest, grey, white and brightest.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.atlas.tissue_maps import ORIGIN, template_maps
from pipeline.imaging.geometry import smooth_for
from schemas.errors import ScanError

SURELY_GREY, SURELY_WHITE = 0.75, 0.95
"""Fractions of the template, as smooth as the grid, from which a voxel is taken for the tissue."""
LEAST_CONTRAST = 0.02
"""Between grey and white matter, as a share of the range of the brain."""


class TissueLevels(NamedTuple):
    """Medians of grey and white matter, as shares of the way from darkest to brightest."""

    grey: float
    white: float


STANDARD = TissueLevels(0.58, 0.92)
"""Where they are moved: the medians of 72 people of two sources."""


def tissue_levels(
    levels: NDArray[np.floating], inside: NDArray[np.bool_], affine: NDArray[np.floating]
) -> TissueLevels | None:
    """Return the levels of grey and white matter, or None where white is not the brighter.

    Parameters
    ----------
    levels
        (X, Y, Z), in [0, 1], of a scan registered to MNI152.
    inside
        (X, Y, Z): the brain.
    affine
        (4, 4), voxel to MNI152 world (mm).
    """
    rows = tuple(tuple(float(v) for v in row) for row in np.asarray(affine))
    places = [place & inside for place in _places(levels.shape, rows)]
    if not all(place.any() for place in places):
        return None
    grey, white = (float(np.median(levels[place])) for place in places)
    apart = min(grey, white - grey, 1 - white) >= LEAST_CONTRAST
    return TissueLevels(grey, white) if apart else None


def standardise(levels: NDArray[np.floating], own: TissueLevels) -> NDArray[np.float64]:
    """Return levels in [0, 1] with the scan's own grey and white matter at STANDARD."""
    return np.asarray(np.interp(levels, (0, *own, 1), (0, *STANDARD, 1)))


def restore(levels: NDArray[np.floating], own: TissueLevels) -> NDArray[np.float64]:
    """Return standardised levels as they were: the inverse of `standardise`."""
    return np.asarray(np.interp(levels, (0, *STANDARD, 1), (0, *own, 1)))


@lru_cache(maxsize=2)
def _places(
    shape: tuple[int, ...], rows: tuple[tuple[float, ...], ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the template surely holds grey and white matter, on a grid."""
    affine, at_1mm = np.asarray(rows), np.eye(4)
    at_1mm[:3, 3] = ORIGIN
    zooms = float(np.cbrt(abs(np.linalg.det(affine[:3, :3]))))
    matrix = np.linalg.inv(at_1mm) @ affine
    maps = template_maps()
    grey, white = (
        ndimage.affine_transform(
            smooth_for(maps[name], at_1mm, zooms),
            matrix[:3, :3],
            matrix[:3, 3],
            output_shape=shape,
            order=1,
        )
        > least
        for name, least in (("gm", SURELY_GREY), ("wm", SURELY_WHITE))
    )
    return grey, white


def scale_intensities(
    values: NDArray[np.float32], inside: NDArray[np.bool_], percentiles: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return `share_of_range` as uint8 and the range: 1 to 255 inside, 0 outside.

    Raises
    ------
    ScanError
        If the brain has no contrast.
    """
    levels, bounds = share_of_range(values, inside, percentiles)
    return quantise(levels, inside), bounds


def share_of_range(
    values: NDArray[np.float32], inside: NDArray[np.bool_], percentiles: tuple[float, float] | None
) -> tuple[NDArray[np.floating], tuple[float, float]]:
    """Map two percentiles of the brain to 0 and 1, clip beyond; return them too.

    Without percentiles the volume's lowest value (air, 0, included) and its highest make the range,
    of which the first 255th is kept for what is outside.

    Raises
    ------
    ScanError
        If the brain has no contrast.
    """
    brain = values[inside]
    if percentiles is None:
        lowest, high = min(0.0, float(brain.min())), float(brain.max())
        low = lowest + (high - lowest) / 255  # becomes level 1
    else:
        low, high = (float(v) for v in np.percentile(brain, percentiles))
    if not high > low:
        raise ScanError("the brain has no contrast")
    return np.clip((values - low) / (high - low), 0, 1), (low, high)


def quantise(levels: NDArray[np.floating], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return levels in [0, 1] as 1 to 255, and 0 outside."""
    return np.where(inside, 1 + np.rint(254 * levels), 0).astype(np.uint8)
