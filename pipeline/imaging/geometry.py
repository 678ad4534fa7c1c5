"""Orientation, cropping and the one resampling onto the target grid."""

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.linalg import polar

from pipeline.imaging.header import SHEAR_TOLERANCE, Affine, shear_of, zooms_of

FWHM_TO_SIGMA = 1 / 2.3548
"""Sigma of a Gaussian whose full width at half maximum is 1."""
Box = tuple[slice, slice, slice]
Mask = npt.NDArray[np.bool_]
Shape = tuple[int, int, int]


def to_ras(data: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """Permute and flip the voxel axes to the closest RAS order; world positions stay."""
    orientation = nib.io_orientation(affine)
    back = nib.orientations.inv_ornt_aff(orientation, data.shape)
    ras = nib.orientations.apply_orientation(data, orientation)
    return np.ascontiguousarray(ras), np.asarray(affine @ back, dtype=np.float64)


def bounding_box(mask: npt.NDArray[np.bool_], margin: int | npt.NDArray[np.int64] = 0) -> Box:
    """Return the smallest box around a mask, widened by a margin (voxels) within the volume."""
    margins = np.broadcast_to(np.asarray(margin), (3,))
    slices = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        where = np.flatnonzero(mask.any(axis=others))
        if where.size == 0:
            raise ValueError("bounding_box of an empty mask")
        start = max(0, int(where[0] - margins[axis]))
        slices.append(slice(start, min(mask.shape[axis], int(where[-1] + 1 + margins[axis]))))
    return slices[0], slices[1], slices[2]


def crop_affine(affine: Affine, box: Box) -> Affine:
    """Return the affine of a volume cut down to a box."""
    cut = affine.copy()
    cut[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return cut


def sample(
    data: npt.NDArray[np.float32], affine: Affine, grid: Affine, shape: Shape, *, order: int = 1
) -> npt.NDArray[np.float32]:
    """Interpolate onto a grid in the same world, linearly by default; 0 outside the volume."""
    matrix = np.linalg.inv(affine) @ grid
    out: npt.NDArray[np.float32] = ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=order, output=np.float32
    )
    return out


def straight_grid(affine: Affine, shape: Shape) -> tuple[Affine, Shape]:
    """Return the grid with axes at right angles that holds a sheared one: affine and shape.

    Voxel sizes stay, the axes are the nearest rotation (or reflection) of those given. A grid whose
    axes are square already is returned as it is.
    """
    if shear_of(affine) <= SHEAR_TOLERANCE:
        return affine, shape
    zooms = zooms_of(affine)
    grid = np.eye(4)
    grid[:3, :3] = polar(affine[:3, :3] / zooms)[0] * zooms
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), axis=-1)
    along = corners.reshape(-1, 3) @ (np.linalg.inv(grid[:3, :3]) @ affine[:3, :3]).T
    grid[:3, 3] = affine[:3, 3] + grid[:3, :3] @ along.min(axis=0)
    sizes = np.ceil(along.max(axis=0) - along.min(axis=0) - 1e-6).astype(int) + 1
    return grid, (int(sizes[0]), int(sizes[1]), int(sizes[2]))


def straighten(
    data: npt.NDArray[np.float32], affine: Affine
) -> tuple[npt.NDArray[np.float32], Affine]:
    """Resample a sheared volume (X, Y, Z) to axes at right angles; world positions stay.

    Cubic, so that one more interpolation costs little detail. Where all neighbours are exactly 0
    stays 0: the surroundings of a stripped brain remain its background.
    """
    shape: Any = data.shape
    grid, size = straight_grid(affine, shape)
    straight = sample(data, affine, grid, size, order=3)
    np.clip(straight, 0, float(data.max()), out=straight)
    straight[sample(data, affine, grid, size) == 0] = 0
    return straight, grid


def smooth_for(
    data: npt.NDArray[np.float32], affine: Affine, target_zooms: float
) -> npt.NDArray[np.float32]:
    """Blur before a coarser sampling, so that fine detail does not alias.

    A voxel is taken as a Gaussian of its own width (full width at half maximum): the blur adds
    what is missing to reach `target_zooms` (mm). Axes as coarse as the target stay as they are.
    """
    zooms = zooms_of(affine)
    sigma = FWHM_TO_SIGMA * np.sqrt(np.maximum(target_zooms**2 - zooms**2, 0)) / zooms
    if (sigma < 0.2).all():
        return data
    smoothed: npt.NDArray[np.float32] = ndimage.gaussian_filter(
        data, sigma, mode="constant", truncate=3.0
    )
    return smoothed


def resample_masked(
    data: npt.NDArray[np.float32], mask: Mask, affine: Affine, grid: Affine, shape: Shape
) -> tuple[npt.NDArray[np.float32], Mask]:
    """Resample what lies inside a mask, once, with no darkening at the mask's rim.

    Numerator (masked data) and denominator (mask) are blurred and sampled alike; their ratio is
    the weighted mean of the voxels inside the mask.

    Returns
    -------
    volume
        (X, Y, Z), 0 outside.
    mask
        (X, Y, Z), where at least half of the weight came from inside.
    """
    return _ratio(data, mask, affine, grid, lambda d: sample(d, affine, grid, shape))


def resample_masked_warped(
    data: npt.NDArray[np.float32],
    mask: Mask,
    affine: Affine,
    *,
    grid: Affine,
    shape: Shape,
    displacement: npt.NDArray[np.float32],
    displacement_affine: Affine,
    to_native: Affine,
) -> tuple[npt.NDArray[np.float32], Mask]:
    """Like `resample_masked`, through a displacement field (mm) and then an affine.

    A grid point p is read at native world `to_native` (p + displacement(p)).
    """
    axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    world = np.stack(axes, axis=-1) @ grid[:3, :3].T + grid[:3, 3]
    shifts = [
        sample(np.ascontiguousarray(displacement[..., i]), displacement_affine, grid, shape)
        for i in range(3)
    ]
    to_voxel = np.linalg.inv(affine) @ to_native
    voxels = (world + np.stack(shifts, axis=-1)) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    points = np.moveaxis(voxels, -1, 0)
    return _ratio(
        data,
        mask,
        affine,
        to_native @ grid,
        lambda d: ndimage.map_coordinates(d, points, order=1, output=np.float32),
    )


def _ratio(
    data: npt.NDArray[np.float32],
    mask: Mask,
    affine: Affine,
    grid: Affine,
    read: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], Mask]:
    target = float(zooms_of(grid).mean())
    weight = mask.astype(np.float32)
    weight_on_grid = read(smooth_for(weight, affine, target))
    value_on_grid = read(smooth_for(data * weight, affine, target))
    inside = weight_on_grid >= 0.5
    volume = np.where(inside, value_on_grid / np.maximum(weight_on_grid, 1e-6), 0)
    return volume.astype(np.float32), inside


def isotropic_grid(
    mask: npt.NDArray[np.bool_], affine: Affine, zooms: float, margin: float
) -> tuple[Affine, tuple[int, int, int]]:
    """Return a grid of `zooms` (mm) along the voxel axes that holds a mask plus a margin (mm)."""
    native = zooms_of(affine)
    box = bounding_box(mask)
    start = np.array([s.start for s in box]) - margin / native
    size = np.array([s.stop - s.start for s in box]) * native + 2 * margin
    grid = affine.copy()
    grid[:3, :3] = affine[:3, :3] / native * zooms
    grid[:3, 3] = affine[:3, 3] + affine[:3, :3] @ start
    shape = np.ceil(size / zooms).astype(int)
    return grid, (int(shape[0]), int(shape[1]), int(shape[2]))
