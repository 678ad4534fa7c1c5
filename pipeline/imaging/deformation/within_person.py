"""The deformation between two volumes of one brain: least squares with a smooth displacement.

The displacement u (mm) makes the volumes alike at points halfway between them, so that neither is
favoured, and is as smooth as that allows:

    sum of (after(y + u/2) − before(y − u/2))² + MEMBRANE ‖∇u‖² + BENDING ‖Δu‖²

over the voxels y, intensities in [0, 1]. Gauss–Newton, coarse to fine; each round's linear system
is solved by conjugate gradients in the space of cosines, where the penalty is diagonal (Ashburner
2007, NeuroImage 38, on the penalties; Ashburner and Ridgway 2013, Frontiers in Neuroscience 6, on
the halfway point between visits). The penalty of the whole displacement, which SyN lacks, spreads a
change of volume over the tissue between two edges instead of heaping it up at one.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from pipeline.imaging.brain import BRAIN_LEVEL
from pipeline.imaging.deformation.growth import Field, Volume
from pipeline.imaging.geometry import bounding_box
from pipeline.imaging.header import Affine, zooms_of
from schemas.errors import ScanError

MARGIN_MM = 12.0
"""Air around both brains that takes part."""
MEMBRANE, BENDING = 2.7e-3, 2.7e-2
"""Weights of the penalties (a squared gradient of 1, and mm²). Chosen on four real heads with
planted atrophy and three phantoms: less follows noise, more makes amounts too small."""
ROUNDS = ((6, 12), (2, 8))
"""Rounds of Gauss–Newton, and of conjugate gradients in each: on voxels twice as large, then on the
grid itself."""
INVERSIONS = 4
"""Rounds of the fixed point that leads from halfway back to `before`."""
SAME = 1 / 512
"""Volumes that differ by less everywhere (half a grey level) are the same."""
AXES = (0, 1, 2)
Zooms = NDArray[np.float64]


def deformation_between(before: Volume, after: Volume, affine: Affine) -> Field:
    """Return the displacement (mm) from each point of `before` to the same tissue in `after`.

    Of two volumes (X, Y, Z) of one person in [0, 1], in the same intensities. Volume grows where
    `volume_factor` of it is above 1.

    Raises
    ------
    ScanError
        If a volume is empty.
    """
    brains = (before > BRAIN_LEVEL) | (after > BRAIN_LEVEL)
    if not ((before > BRAIN_LEVEL).any() and (after > BRAIN_LEVEL).any()):
        raise ScanError("deformation: a volume is empty; expected two brains on one grid")
    field = np.zeros((*before.shape, 3), np.float32)
    if np.abs(before - after).max() <= SAME:
        return field
    zooms = zooms_of(affine)
    box = bounding_box(brains, np.ceil(MARGIN_MM / zooms).astype(int))
    pairs = [(before[box].astype(np.float32), after[box].astype(np.float32))]
    for _ in ROUNDS[1:]:
        pairs.append((_halved(pairs[-1][0]), _halved(pairs[-1][1])))
    halfway = np.zeros((*pairs[-1][0].shape, 3), np.float32)
    for level, (rounds, conjugate) in zip(range(len(ROUNDS))[::-1], ROUNDS, strict=True):
        first, last = pairs[level]
        if halfway.shape[:3] != first.shape:
            halfway = _doubled(halfway, first.shape)
        for _ in range(rounds):
            halfway = halfway + _update(halfway, first, last, zooms * 2**level, conjugate)
    field[box] = _from_before(halfway, zooms) @ (affine[:3, :3] / zooms).T.astype(np.float32)
    return field


def _update(u: Field, first: Volume, last: Volume, zooms: Zooms, conjugate: int) -> Field:
    """Return a Gauss–Newton step, at most a voxel long; displacements along the voxel axes."""
    half: Field = np.asarray(u / 2, np.float32)
    here, there = _moved(first, -half, zooms), _moved(last, half, zooms)
    slope = np.stack(np.gradient((here + there) / 2, *zooms), axis=-1).astype(np.float32)
    penalty = _penalty(first.shape, zooms)
    left = -_cosines((there - here)[..., None] * slope) - penalty * _cosines(u)
    inverse = 1 / (penalty + float((slope**2).mean()))
    step = np.zeros_like(left)
    rest: Field = np.asarray(inverse * left, np.float32)
    along, size = rest, float(np.vdot(left, rest))
    for _ in range(conjugate):
        if size <= 0:
            break
        moved = np.asarray(slope * _values(along)).sum(axis=-1, keepdims=True)
        image = _cosines(np.asarray(slope * moved)) + penalty * along
        length = np.float32(size / float(np.vdot(along, image)))
        step += length * along
        left -= length * image
        rest = np.asarray(inverse * left, np.float32)
        former, size = size, float(np.vdot(left, rest))
        along = np.asarray(rest + np.float32(size / former) * along, np.float32)
    found = _values(step)
    longest = float(np.abs(found / zooms).max())
    return np.asarray(found / max(longest, 1.0), np.float32)


def _penalty(shape: tuple[int, ...], zooms: Zooms) -> NDArray[np.float32]:
    """Return the penalty of each cosine (X, Y, Z, 1): the eigenvalues of −Δ, and their squares."""
    total = np.zeros(shape)
    for axis, (size, zoom) in enumerate(zip(shape, zooms, strict=True)):
        along = (2 - 2 * np.cos(np.pi * np.arange(size) / size)) / zoom**2
        total = total + along.reshape([-1 if i == axis else 1 for i in AXES])
    return np.asarray(MEMBRANE * total + BENDING * total**2 + 1e-9, np.float32)[..., None]


def _cosines(values: Field) -> Field:
    return np.asarray(fft.dctn(values, axes=AXES, norm="ortho"))


def _values(cosines: Field) -> Field:
    return np.asarray(fft.idctn(cosines, axes=AXES, norm="ortho"))


def _moved(volume: Volume, u: Field, zooms: Zooms) -> Volume:
    """Return the volume's values at each voxel's centre plus `u` (mm)."""
    place = np.indices(volume.shape, dtype=np.float32)
    place += np.moveaxis(np.asarray(u / zooms, np.float32), -1, 0)
    sampled = ndimage.map_coordinates(volume, place, order=1, mode="nearest", output=np.float32)
    return np.asarray(sampled)


def _from_before(halfway: Field, zooms: Zooms) -> Field:
    """Return the displacement at the points of `before` of one that is known halfway."""
    half: Field = np.asarray(halfway / 2, np.float32)
    for _ in range(INVERSIONS):
        parts = [_moved(halfway[..., i], half, zooms) for i in AXES]
        half = np.asarray(np.stack(parts, axis=-1) / 2, np.float32)
    return np.asarray(2 * half, np.float32)


def _halved(volume: Volume) -> Volume:
    """Return means of 2 × 2 × 2 voxels; a last odd one is left out, which is air."""
    x, y, z = (size // 2 for size in volume.shape)
    cut = volume[: 2 * x, : 2 * y, : 2 * z]
    return np.asarray(cut.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5)), np.float32)


def _doubled(u: Field, shape: tuple[int, ...]) -> Field:
    axes = [(np.arange(size, dtype=np.float32) - 0.5) / 2 for size in shape]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    parts = [ndimage.map_coordinates(u[..., i], place, order=1, mode="nearest") for i in AXES]
    return np.stack(parts, axis=-1)
