"""Principal components as rivals of y_sem: unwhitened, and with its dimension and spectrum."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pipeline.probes.estimators import Head, unscaled_head

Features = dict[str, NDArray[np.floating]]

UNWHITENED = {"pca_latents": "pca_latents_ridge", "pca_voxels": "pca_voxels_ridge"}
"""Components to the same read by a layer that does not whiten them."""
MATCHED = "pca_latents_matched"


def unwhitened(features: Mapping[str, NDArray[np.floating]]) -> tuple[Features, dict[str, Head]]:
    """Return the components again under names of their own, with the head that keeps their spreads.

    Standardised, the fiftieth component of 48 people counts as much as the first, which is mostly
    noise that whitening blows up.
    """
    again = {new: features[old] for old, new in UNWHITENED.items() if old in features}
    return again, dict.fromkeys(again, unscaled_head)


def spectrum(codes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the standard deviations of codes (scan, dim) along their principal axes, falling."""
    centred = np.asarray(codes, dtype=np.float64) - codes.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    values: NDArray[np.float64] = singular / np.sqrt(max(1, len(codes) - 1))
    return values


def matched_components(
    scores: NDArray[np.floating], y_sem: NDArray[np.floating], fit: NDArray[np.bool_], *, seed: int
) -> NDArray[np.float64]:
    """Return components (scan, dim of y_sem) with y_sem's spectrum over the scans `fit`.

    `scores` (scan, component) are principal components of the latents; the k-th is given the
    spread that y_sem has along its k-th own axis, and all are turned at random, so that the probe
    meets them as it meets y_sem: in as many coordinates, none of them special. Components that
    either lacks are left out.
    """
    rank = min(scores.shape[1], y_sem.shape[1], int(fit.sum()) - 1)
    own = spectrum(y_sem[fit])[:rank]
    centred = np.asarray(scores[:, :rank], dtype=np.float64) - scores[fit, :rank].mean(axis=0)
    spreads = centred[fit].std(axis=0, ddof=1)
    scaled = centred * np.divide(own, spreads, out=np.zeros(rank), where=spreads > 0)
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.standard_normal((y_sem.shape[1], y_sem.shape[1])))[0]
    matched: NDArray[np.float64] = scaled @ turn[:rank]
    return matched


def fit_full_pca(flat: NDArray[np.floating], dim: int) -> PCA:
    """Fit as many components to training scans (scan, latent) as y_sem has numbers, or fewer."""
    return PCA(min(dim, len(flat) - 1), svd_solver="full").fit(flat)
