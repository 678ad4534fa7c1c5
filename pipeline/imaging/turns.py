"""The 24 rotations of a header with mixed-up axes, ranked by likeness with the template."""

import itertools
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.imaging.atlas.mni152 import grid_affine, load_template
from pipeline.imaging.geometry import sample, smooth_for
from pipeline.imaging.header import Affine
from schemas.grid import GridParams

BRIGHT = 0.05
"""Intensity (0 to 1) from which a voxel counts for the centre of mass."""


@lru_cache(maxsize=1)
def quarter_turns() -> tuple[npt.NDArray[np.float64], ...]:
    """Return the 24 rotations (3, 3) that map the axes onto axes, the identity first."""
    turns = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), axes] = signs
            if np.linalg.det(turn) > 0:
                turns.append(turn)
    return tuple(turns)


def ranked_turns(
    brain: npt.NDArray[np.float32], affine: Affine, grid: GridParams
) -> list[tuple[float, Affine]]:
    """Return the 24 poses of a brain (X, Y, Z) and how well each fits the template, best first.

    A brain that a wrong header turns by quarter turns lies within some 25 degrees of one of them.
    Each is tried about the centre of mass and at every shift on the `grid` (by Fourier transform),
    which takes half a second for all.

    Returns
    -------
    list of (r, pose)
        Correlation with the template, and (4, 4) native world to MNI152 world (mm).
    """
    template, _ = load_template(grid)
    target = grid_affine(grid)
    centre, middle = _centre(brain, affine), _centre(template, target)
    smooth = smooth_for(brain, affine, grid.zooms)
    size = [fft.next_fast_len(2 * n) for n in template.shape]
    known = template - template.mean()
    spectrum = np.conj(fft.rfftn(known, size))
    poses = []
    for turn in quarter_turns():
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = middle - turn @ centre
        turned = sample(smooth, affine, np.linalg.inv(pose) @ target, grid.shape)
        turned = turned - turned.mean()
        match = fft.irfftn(fft.rfftn(turned, size) * spectrum, size)
        best = np.unravel_index(int(match.argmax()), match.shape)
        shift = [i if i < n // 2 else i - n for i, n in zip(best, size, strict=True)]
        pose[:3, 3] -= grid.zooms * np.asarray(shift)
        norm = float(np.linalg.norm(known) * np.linalg.norm(turned))
        poses.append((float(match.max()) / max(norm, 1e-12), pose))
    return sorted(poses, key=lambda item: -item[0])


def _centre(volume: npt.NDArray[np.float32], affine: Affine) -> npt.NDArray[np.float64]:
    """Return the centre of mass of what is bright, in world coordinates (mm)."""
    where = np.argwhere(volume > BRIGHT)
    if where.size == 0:
        where = np.argwhere(np.ones(volume.shape, bool))
    weight = np.maximum(volume[tuple(where.T)], BRIGHT)
    middle = (where * weight[:, None]).sum(axis=0) / weight.sum()
    return np.asarray(affine[:3, :3] @ middle + affine[:3, 3], dtype=np.float64)
