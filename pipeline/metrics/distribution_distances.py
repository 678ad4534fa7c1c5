"""Fréchet distance between two sets of feature vectors."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm

Floats = NDArray[np.float64]


def frechet_distance(x: Floats, y: Floats) -> float:
    """Return the Fréchet distance of two Gaussians (Heusel et al. 2017) fitted to features.

    Biased upwards where there are fewer brains than features: compare like with like.
    """
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(cov_x @ cov_y)
    return float(means + np.trace(cov_x + cov_y - 2 * np.real(root)))
