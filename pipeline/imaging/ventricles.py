"""Volume of the lateral ventricles by a simple rule, in template space and in the scan's own.

The rule, on a stripped T1w volume on the MNI grid:

1. A voxel is in the *territory* of the ventricles if it lies nearer to the lateral ventricles of
   the ICBM152 template than to its other fluid (sulci, cisterns, third ventricle) or its border,
   or at most 5 mm further: ventricles grow at the cost of what is around them.
2. *Sure fluid* is dark voxels of the territory that dark voxels join to the territory's middle.
3. A voxel counts by how dark it is, but only beside sure fluid and within the territory.

Every step is a continuous function of the intensities: a ventricle that widens by a tenth of a
voxel measures a tenth of a voxel more.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.atlas.tissue_maps import template_maps, ventricle_map
from pipeline.imaging.geometry import smooth_for
from pipeline.imaging.header import zooms_of

SURE_FLUID = (0.1, 0.4)
"""Shares of the way from fluid to the brain's median: sure fluid below the first, none above the
second."""
ANY_FLUID = (0.5, 1.2)
"""The same for voxels beside sure fluid: those at its edge hold both fluid and, for the most part,
white matter, which lies at about 1.5 of that way."""
FLUID_PERCENTILE = 5.0
"""Which percentile of the voxels in the template's own ventricles is fluid."""
BRIGHTEST_FLUID = 0.35
"""Share of the brain's median above which nothing is fluid: of ventricles too narrow to fill a
voxel, and of images without any."""
BESIDE_MM = 3.0
"""How far from sure fluid a voxel may lie and count."""
REACH_MM = 5.0
"""How much nearer other fluid may be than the ventricles for a voxel to be theirs (mm)."""
MIDDLE_MM = 2.0
"""How much nearer the ventricles must be than other fluid in the middle of the territory (mm)."""
OTHER_FLUID = 0.5
"""Share of fluid in the average brain from which a place belongs to sulci and cisterns."""
OCCIPITAL_HORNS = ((29.0, -52.0, 5.0), (25.0, -75.0, 4.0))
"""Ends (mm, right; mirrored for the left) of the line along which the occipital horns open: the
average brain shows none, elders have them."""
AROUND = ((-66, 66), (-96, 64), (-42, 66))
"""x, y, z bounds (mm) of the part of the template that the territory is made from."""


@lru_cache(maxsize=1)
def _template() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return maps (X, Y, Z) of 1 mm and their affine.

    How much nearer the ventricles are than other fluid (mm); the fluid of the lateral ventricles.
    """
    maps = template_maps(AROUND)
    lateral = ventricle_map(maps["csf"], tuple(float(low) for low, _ in AROUND))
    ventricles = (lateral > 0.3) | _occipital_horns()
    other = (maps["csf"] > OTHER_FLUID) | (maps["mask"] < 0.5)
    other &= ~ndimage.binary_dilation(lateral > 0.01, iterations=2) & ~ventricles
    to_other, to_ventricles = (
        ndimage.distance_transform_edt(~place).astype(np.float32) for place in (other, ventricles)
    )
    affine = np.eye(4)
    affine[:3, 3] = [low for low, _ in AROUND]
    return to_other - to_ventricles, lateral, affine


def _occipital_horns() -> NDArray[np.bool_]:
    """Return the voxels of AROUND within 1.5 mm of OCCIPITAL_HORNS or its mirror image."""
    start, end = np.asarray(OCCIPITAL_HORNS)
    near = np.zeros([high - low + 1 for low, high in AROUND], dtype=bool)
    # A capsule is small beside the template: only its own box is measured, on the right.
    least, most = np.minimum(start, end) - 2, np.maximum(start, end) + 2
    axes = np.meshgrid(*map(np.arange, least, most + 1), indexing="ij")
    points = np.stack(axes, axis=-1)
    along = np.clip((points - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    within = np.linalg.norm(points - start - along[..., None] * (end - start), axis=-1) < 1.5
    x, y, z = (axis[within].astype(int) for axis in axes)
    (left, _), (back, _), (down, _) = AROUND
    for side in (x, -x):
        near[side - left, y - back, z - down] = True
    return near


class _Shares(NamedTuple):
    """Shares of each voxel of a grid (X, Y, Z)."""

    territory: NDArray[np.float32]
    middle: NDArray[np.float32]
    """Of the territory's middle, where ventricles are for certain."""
    ventricles: NDArray[np.float32]
    """Of the template's own lateral ventricles."""


@lru_cache(maxsize=4)
def _shares_on(shape: tuple[int, ...], rows: tuple[tuple[float, ...], ...]) -> _Shares:
    """Return the shares on a grid; `rows` are those of its affine."""
    nearer, lateral, at_1mm = _template()
    affine = np.asarray(rows)
    zooms = float(np.cbrt(abs(np.linalg.det(affine[:3, :3]))))
    matrix = np.linalg.inv(at_1mm) @ affine
    # The border is 3 mm wide, whatever the grid, so that every grid measures the same.
    territory, middle = (
        np.clip(0.5 + (nearer + reach) / 3, 0, 1) for reach in (REACH_MM, -MIDDLE_MM)
    )
    on_grid: list[NDArray[np.float32]] = []
    for share in (territory, middle, lateral):
        smooth = smooth_for(share.astype(np.float32), at_1mm, zooms)
        on_grid.append(
            ndimage.affine_transform(
                smooth, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1
            )
        )
        on_grid[-1].setflags(write=False)
    return _Shares(*on_grid)


def ventricle_territory(
    shape: tuple[int, ...], affine: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the share of each voxel (X, Y, Z) of a grid in MNI152 that may be ventricle."""
    return _shares_on(tuple(shape), _rows(affine)).territory


def _rows(affine: NDArray[np.floating]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in np.asarray(affine))


class Levels(NamedTuple):
    """Intensities of fluid and of tissue, which the rule compares with."""

    fluid: float
    tissue: float
    """Median of the brain."""


def intensity_levels(volume: NDArray[np.floating], affine: NDArray[np.floating]) -> Levels:
    """Return the intensity of ventricular fluid and of tissue in a stripped volume (X, Y, Z).

    Both are NaN where there is no brain.
    """
    brain = volume[volume > 0.1]
    if not brain.size:
        return Levels(float("nan"), float("nan"))
    tissue = float(np.median(brain))
    inside = volume[_shares_on(tuple(volume.shape), _rows(affine)).ventricles > 0.5]
    brightest = BRIGHTEST_FLUID * tissue
    fluid = float(np.percentile(inside, FLUID_PERCENTILE)) if inside.size else brightest
    return Levels(min(fluid, brightest), tissue)


def _darkness(
    volume: NDArray[np.floating], levels: Levels, bounds: tuple[float, float]
) -> NDArray[np.floating]:
    """Return 1 up to the first bound, 0 from the second, linear between.

    Bounds are shares of the way from fluid to tissue.
    """
    way = (volume - levels.fluid) / (levels.tissue - levels.fluid)
    dark: NDArray[np.floating] = np.clip((bounds[1] - way) / (bounds[1] - bounds[0]), 0, 1)
    return dark


def _joined(seeds: NDArray[np.floating], fluid: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return greyscale reconstruction: the best of all ways from the seeds through the fluid.

    A way is as good as its worst voxel.
    """
    faces = ndimage.generate_binary_structure(3, 1)
    reached: NDArray[np.floating] = np.minimum(seeds, fluid)
    for _ in range(sum(fluid.shape)):
        wider = np.minimum(ndimage.grey_dilation(reached, footprint=faces), fluid)
        if np.array_equal(wider, reached):
            break
        reached = wider
    return reached


def _ball(radius_mm: float, zooms: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the voxels within a radius of the middle one."""
    half = np.floor(radius_mm / zooms + 1e-6).astype(int)
    steps = np.meshgrid(*(np.arange(-n, n + 1) for n in half), indexing="ij")
    away = np.linalg.norm(np.stack(steps, axis=-1) * zooms, axis=-1)
    return np.asarray(away <= radius_mm + 1e-6)


def ventricle_ml(
    volume: NDArray[np.floating], affine: NDArray[np.floating], *, levels: Levels | None = None
) -> float:
    """Return the fluid of the lateral ventricles (ml) in a stripped T1w volume on the MNI grid.

    Millilitres of template space; `native_ml` makes those of the head of it.

    Parameters
    ----------
    volume
        (X, Y, Z), in [0, 1], 0 outside the brain.
    affine
        (4, 4): voxel to MNI152 world (mm).
    levels
        `intensity_levels` of the volume itself, by default. To compare volumes made of one scan,
        give all of them those of the scan, so that the rule does not move with them.

    Returns NaN for a volume without a brain.
    """
    own = intensity_levels(volume, affine) if levels is None else levels
    if not np.isfinite(own).all():
        return float("nan")
    shares = _shares_on(tuple(volume.shape), _rows(affine))
    where = ndimage.find_objects((shares.territory > 0).astype(np.int8))
    if not where:
        return 0.0
    box = where[0]
    values, territory = volume[box], shares.territory[box]
    fluid = _darkness(values, own, SURE_FLUID) * territory
    sure = _joined(fluid * shares.middle[box], fluid)
    zooms = zooms_of(np.asarray(affine))
    beside = ndimage.grey_dilation(sure, footprint=_ball(BESIDE_MM, zooms))
    counted = np.minimum(_darkness(values, own, ANY_FLUID), beside) * territory
    return float(counted.sum()) * float(np.prod(zooms)) / 1000


def native_ml(template_ml: float, native_to_mni: NDArray[np.floating]) -> float:
    """Return a volume of the scan's own space (ml) from one measured in template space.

    `native_to_mni` (4, 4) is the affine that the volume store keeps for each scan; its determinant
    is how much larger registration made the brain. After `registration: syn` this holds on
    average over the head alone.
    """
    return template_ml / abs(float(np.linalg.det(np.asarray(native_to_mni)[:3, :3])))
