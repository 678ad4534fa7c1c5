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

from collections.abc import Iterator, Sequence

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
ROUNDS_ALONG = 1
"""Rounds on the grid itself from the deformation before, along a course."""
FARTHEST, LEFT = 2.5, 0.5
"""How many times as far along a deformation is drawn out, and the most of the sum of squares that
may be left by it; beyond, the next one starts from none."""
INVERSIONS = 4
"""Rounds of the fixed point that leads from halfway back to `before`."""
SAME = 1 / 512
"""Volumes that differ by less everywhere (half a grey level) are the same."""
AXES = (-3, -2, -1)
Zooms = NDArray[np.float64]
Parts = NDArray[np.float32]
"""(3, X, Y, Z): displacement along the voxel axes (mm), or its cosines."""


def deformation_between(before: Volume, after: Volume, affine: Affine) -> Field:
    """Return the displacement (mm) from each point of `before` to the same tissue in `after`.

    Of two volumes (X, Y, Z) of one person in [0, 1], in the same intensities. Volume grows where
    `volume_factor` of it is above 1.

    Raises
    ------
    ScanError
        If a volume is empty.
    """
    return next(deformations_along(before, [(1.0, after)], affine))


def deformations_along(
    before: Volume, course: Sequence[tuple[float, Volume]], affine: Affine
) -> Iterator[Field]:
    """Yield the deformation to each volume of a course that leads away from `before`.

    A volume's number tells how far along it lies; they rise from 0, or fall. A deformation starts
    from the one before, drawn out to its number, where that accounts for most of what differs: so
    it takes half the time, and comes nearer to the least squares than from none.

    Raises
    ------
    ScanError
        If a volume is empty.
    """
    brains = before > BRAIN_LEVEL
    for _, after in course:
        if not ((before > BRAIN_LEVEL).any() and (after > BRAIN_LEVEL).any()):
            raise ScanError("deformation: a volume is empty; expected two brains on one grid")
        brains = brains | (after > BRAIN_LEVEL)
    zooms = zooms_of(affine)
    box = bounding_box(brains, np.ceil(MARGIN_MM / zooms).astype(int))
    first = _padded(before[box])
    former: tuple[float, Parts] | None = None
    for number, after in course:
        field = np.zeros((*before.shape, 3), np.float32)
        if np.abs(before - after).max() > SAME:
            last = _padded(after[box])
            start = None if former is None else _drawn_out(*former, number, first, last, zooms)
            halfway = _coarse_to_fine(first, last, zooms) if start is None else start
            for _ in range(0 if start is None else ROUNDS_ALONG):
                halfway = halfway + _update(halfway, first, last, zooms, ROUNDS[-1][1])
            former = number, halfway
            x, y, z = before[box].shape
            parts = np.moveaxis(_from_before(halfway, zooms)[:, :x, :y, :z], 0, -1)
            field[box] = parts @ (affine[:3, :3] / zooms).T.astype(np.float32)
        yield field


def _drawn_out(
    former: float, halfway: Parts, number: float, first: Volume, last: Volume, zooms: Zooms
) -> Parts | None:
    """Return a displacement at another number, or None where it is no good start."""
    if not 1 <= number / former <= FARTHEST:
        return None
    start: Parts = np.asarray(halfway * (number / former), np.float32)
    half: Parts = np.asarray(start / 2, np.float32)
    left = _moved(last, half, zooms) - _moved(first, -half, zooms)
    return start if np.vdot(left, left) < LEFT * np.vdot(last - first, last - first) else None


def _coarse_to_fine(first: Volume, last: Volume, zooms: Zooms) -> Parts:
    pairs = [(first, last)]
    for _ in ROUNDS[1:]:
        pairs.append((_halved(pairs[-1][0]), _halved(pairs[-1][1])))
    halfway = np.zeros((3, *pairs[-1][0].shape), np.float32)
    for level, (rounds, conjugate) in zip(range(len(ROUNDS))[::-1], ROUNDS, strict=True):
        one, other = pairs[level]
        if halfway.shape[1:] != one.shape:
            halfway = _doubled(halfway, one.shape)
        for _ in range(rounds):
            halfway = halfway + _update(halfway, one, other, zooms * 2**level, conjugate)
    return halfway


def _padded(volume: Volume) -> Volume:
    """Return the volume with air after it, up to even lengths whose cosines are fast."""
    sizes = [2 * fft.next_fast_len(-(-size // 2), real=True) for size in volume.shape]
    air = [(0, size - own) for size, own in zip(sizes, volume.shape, strict=True)]
    return np.pad(np.asarray(volume, np.float32), air)


def _update(u: Parts, first: Volume, last: Volume, zooms: Zooms, conjugate: int) -> Parts:
    """Return a Gauss–Newton step, at most a voxel long."""
    half: Parts = np.asarray(u / 2, np.float32)
    here, there = _moved(first, -half, zooms), _moved(last, half, zooms)
    slope = np.asarray(np.gradient((here + there) / 2, *zooms), np.float32)
    penalty = _penalty(first.shape, zooms)
    left = -_cosines((there - here) * slope) - penalty * _cosines(u)
    inverse = 1 / (penalty + float((slope**2).mean()))
    step = np.zeros_like(left)
    rest: Parts = np.asarray(inverse * left, np.float32)
    along, size = rest, float(np.vdot(left, rest))
    for _ in range(conjugate):
        if size <= 0:
            break
        moved = np.einsum("iabc,iabc->abc", slope, _values(along))
        image = _cosines(np.asarray(slope * moved)) + penalty * along
        length = np.float32(size / float(np.vdot(along, image)))
        step += length * along
        left -= length * image
        rest = np.asarray(inverse * left, np.float32)
        former, size = size, float(np.vdot(left, rest))
        along = np.asarray(rest + np.float32(size / former) * along, np.float32)
    found = _values(step)
    longest = float(np.abs(found / zooms[:, None, None, None]).max())
    return np.asarray(found / max(longest, 1.0), np.float32)


def _penalty(shape: tuple[int, ...], zooms: Zooms) -> NDArray[np.float32]:
    """Return the penalty of each cosine (X, Y, Z): the eigenvalues of −Δ, and their squares."""
    total = np.zeros(shape)
    for axis, (size, zoom) in enumerate(zip(shape, zooms, strict=True)):
        along = (2 - 2 * np.cos(np.pi * np.arange(size) / size)) / zoom**2
        total = total + along.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.asarray(MEMBRANE * total + BENDING * total**2 + 1e-9, np.float32)


def _cosines(values: Parts) -> Parts:
    return np.asarray(fft.dctn(values, axes=AXES, norm="ortho"))


def _values(cosines: Parts) -> Parts:
    return np.asarray(fft.idctn(cosines, axes=AXES, norm="ortho"))


def _moved(volume: Volume, u: Parts, zooms: Zooms) -> Volume:
    """Return the volume's values at each voxel's centre plus `u` (mm)."""
    place = np.indices(volume.shape, dtype=np.float32)
    place += np.asarray(u / zooms[:, None, None, None], np.float32)
    sampled = ndimage.map_coordinates(volume, place, order=1, mode="nearest", output=np.float32)
    return np.asarray(sampled)


def _from_before(halfway: Parts, zooms: Zooms) -> Parts:
    """Return the displacement at the points of `before` of one that is known halfway."""
    half: Parts = np.asarray(halfway / 2, np.float32)
    for _ in range(INVERSIONS):
        half = np.stack([_moved(part, half, zooms) for part in halfway]) / np.float32(2)
    return np.asarray(2 * half, np.float32)


def _halved(volume: Volume) -> Volume:
    """Return means of 2 × 2 × 2 voxels."""
    x, y, z = (size // 2 for size in volume.shape)
    return np.asarray(volume.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5)), np.float32)


def _doubled(u: Parts, shape: tuple[int, ...]) -> Parts:
    axes = [(np.arange(size, dtype=np.float32) - 0.5) / 2 for size in shape]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    return np.stack([ndimage.map_coordinates(p, place, order=1, mode="nearest") for p in u])
