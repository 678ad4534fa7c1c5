"""Heads that nobody has, near those of people: warped smoothly, of other contrast and sharpness."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from pipeline.runtime.digests import seed_from

WARPS = ((2.0, 24.0), (0.7, 9.0))
"""Standard deviation along each axis and smoothness (mm) of the warps of copies."""
GAMMA = 0.1
"""Standard deviation of the logarithm of the gamma of copies."""
STEP = 3.0
"""Voxel size (mm) of the grid on which warps are drawn."""
SHARPEN_SIGMA = 1.2
"""Blur (mm) whose difference from the image sharpens it."""

Volume = UInt8[np.ndarray, "X Y Z"]
Displacement = Float[np.ndarray, "3 X Y Z"]


def warped_copy(
    volume: Volume,
    name: str,
    *,
    zooms: float,
    moved: Displacement | None = None,
    sharpen: float = 0.0,
) -> Volume:
    """Return a copy of a brain, 0 outside and 1 to 255 inside; its name alone is the seed.

    `moved` (voxels) is added to the random warp, as planted atrophy is; `sharpen` is the weight of
    what a Gaussian blur takes away.
    """
    rng = np.random.default_rng(seed_from("copy", name))
    points = np.indices(volume.shape, dtype=np.float32)
    for size, smoothness in WARPS:
        points += _smooth_warp(rng, volume.shape, smoothness, zooms) * (size / zooms)
    if moved is not None:
        points += moved
    levels = volume.astype(np.float32) / 255
    if sharpen:
        levels += sharpen * (levels - ndimage.gaussian_filter(levels, SHARPEN_SIGMA / zooms))
    inside = ndimage.map_coordinates((volume > 0).astype(np.float32), points, order=1) >= 0.5
    taken = np.zeros(volume.shape, np.float32)
    taken[inside] = ndimage.map_coordinates(levels, points[:, inside], order=3)
    taken = np.clip(taken, 0, 1) ** np.exp(GAMMA * rng.standard_normal())
    return np.where(inside, np.clip(np.rint(255 * taken), 1, 255), 0).astype(np.uint8)


def _smooth_warp(
    rng: np.random.Generator, shape: tuple[int, ...], smoothness: float, zooms: float
) -> Displacement:
    """Return three smooth fields of standard deviation 1."""
    every = max(1, round(STEP / zooms))
    coarse = tuple(-(-n // every) for n in shape)
    noise = rng.standard_normal((3, *coarse), dtype=np.float32)
    fields = np.stack([ndimage.gaussian_filter(n, smoothness / zooms / every) for n in noise])
    fields /= fields.std()
    if every == 1:
        return fields
    fine = np.stack(
        [ndimage.zoom(f, every, order=1, grid_mode=True, mode="nearest") for f in fields]
    )
    return fine[:, : shape[0], : shape[1], : shape[2]]
