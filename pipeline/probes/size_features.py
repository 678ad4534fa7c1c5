"""Size of a head and brain, which registration takes out of a latent, kept beside y_sem."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIZE = "size"
BESIDE = "y_sem + size"


def log_scales(native_to_mni: Floats) -> Floats:
    """Return by how much registration stretches a head along each axis of the template, as logs.

    `native_to_mni` (4, 4) is stretch times rotation (polar decomposition): how the head lay in the
    scanner does not matter. The three (left–right, back–front, down–up) add up to the logarithm of
    the determinant; a large head has small ones.
    """
    linear = native_to_mni[:3, :3]
    squares, axes = np.linalg.eigh(linear @ linear.T)
    logs: Floats = np.diag(axes * (0.5 * np.log(squares)) @ axes.T).copy()
    return logs


def beside(
    y_sem: NDArray[np.floating], size: NDArray[np.floating], fit: NDArray[np.bool_]
) -> Floats:
    """Return y_sem and size side by side, (scan, dim + 4), for a layer that does not rescale.

    Each number is standardised over the scans `fit` and divided by the root of how many stand in
    its block: the four of size weigh as much as all of y_sem. Plainly standardised they would be
    four among hundreds, and the penalty would let little of them through.
    """
    blocks = []
    for block in (y_sem, size):
        values = np.asarray(block, dtype=np.float64)
        mean, deviation = values[fit].mean(axis=0), values[fit].std(axis=0)
        unit = np.where(deviation > np.finfo(np.float32).eps * np.abs(mean), deviation, np.inf)
        blocks.append((values - mean) / unit / np.sqrt(values.shape[1]))
    return np.concatenate(blocks, axis=1)
