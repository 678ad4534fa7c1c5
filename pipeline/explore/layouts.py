"""Where people lie on the page: y_sem laid out in two dimensions."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ParamsError

Floats = NDArray[np.float64]

FEWEST = 3
"""Scans that a layout needs."""
PERPLEXITY = 30.0
"""Of t-SNE, about how many neighbours a scan has; fewer where there are few scans."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of scans, and what the axes are."""

    places: Floats
    """(scan, 2), NaN where a scan has no y_sem."""
    axes: tuple[str, str]


def available_layouts() -> list[str]:
    """Return the layouts that this installation can compute, the quickest first."""
    return ["pca", "tsne", *(["umap"] if find_spec("umap") else [])]


def lay_out(y_sem: Floats, kind: str) -> Layout:
    """Return the layout of codes (scan, dim); rows of NaN stay without a place.

    The numbers of y_sem are taken as loud as they are; the seed is fixed.

    Raises
    ------
    ParamsError
        If the layout is not known, or there are too few scans.
    """
    known = np.isfinite(y_sem).all(axis=1)
    if kind not in available_layouts():
        raise ParamsError(f"layout {kind}: expected one of {', '.join(available_layouts())}")
    if known.sum() < FEWEST:
        raise ParamsError(f"layout: {known.sum()} scans with y_sem, expected {FEWEST} or more")
    places = np.full((len(y_sem), 2), np.nan)
    codes = y_sem[known] - y_sem[known].mean(axis=0)
    axes = (f"{_NAMES[kind]} 1", f"{_NAMES[kind]} 2")
    if kind == "pca":
        places[known], shares = _principal(codes)
        axes = (f"PC 1 · {shares[0]:.0%} of variance", f"PC 2 · {shares[1]:.0%}")
    elif kind == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
        places[known] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(codes)
    else:
        from umap import UMAP  # not a dependency: used where it is installed

        neighbours = min(15, len(codes) - 1)
        places[known] = UMAP(n_neighbors=neighbours, random_state=0).fit_transform(codes)
    return Layout(places, axes)


_NAMES = {"pca": "PC", "tsne": "t-SNE", "umap": "UMAP"}


def _principal(codes: Floats) -> tuple[Floats, Floats]:
    """Return the first two principal components of centred codes, and their shares."""
    left, lengths, right = np.linalg.svd(codes, full_matrices=False)
    # The sign is free: the largest weight of a component counts upwards.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    places = left[:, :2] * lengths[:2] * signs[:2]
    shares = lengths[:2] ** 2 / max(float((lengths**2).sum()), 1e-12)
    return np.asarray(places), np.asarray(shares)
