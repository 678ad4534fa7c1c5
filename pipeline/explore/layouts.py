"""Where people lie on the page: y_sem laid out in two dimensions."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ParamsError

Floats = NDArray[np.float64]

FEWEST_NEIGHBOURS = 5
"""Scans from which on a layout by neighbours (t-SNE, UMAP) is offered; components take any."""
PERPLEXITY = 30.0
"""Of t-SNE, about how many neighbours a scan has; fewer where there are few scans."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of scans, and what the axes are."""

    places: Floats
    """(scan, 2), NaN where a scan has no y_sem."""
    axes: tuple[str, str]


def available_layouts(y_sem: Floats | None) -> list[str]:
    """Return the layouts of codes (scan, dim) that can be computed here, the quickest first."""
    known = 0 if y_sem is None else len(np.unique(y_sem[_complete(y_sem)], axis=0))
    if known < FEWEST_NEIGHBOURS:
        return ["pca"] if known else []
    return ["pca", "tsne", *(["umap"] if find_spec("umap") else [])]


def lay_out(y_sem: Floats, kind: str) -> Layout:
    """Return the layout of codes (scan, dim); rows of NaN stay without a place.

    The numbers of y_sem are taken as loud as they are; the seed is fixed.

    Raises
    ------
    ParamsError
        If the layout cannot be computed of these codes.
    """
    known, kinds = _complete(y_sem), available_layouts(y_sem)
    if kind not in kinds:
        raise ParamsError(
            f"layout {kind[:20]}: of these {known.sum()} scans with y_sem, expected one of"
            f" {', '.join(kinds) or 'none'}"
        )
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
        places[known] = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(codes)
    return Layout(places, axes)


_NAMES = {"pca": "PC", "tsne": "t-SNE", "umap": "UMAP"}


def _complete(y_sem: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(y_sem).all(axis=1))


def _principal(codes: Floats) -> tuple[Floats, Floats]:
    """Return the first two principal components of centred codes, and their shares.

    One scan, or codes of one number, have no second component: it is 0.
    """
    short = [(0, max(0, 2 - size)) for size in codes.shape]
    codes = np.pad(codes, short)
    left, lengths, right = np.linalg.svd(codes, full_matrices=False)
    # The sign is free: the largest weight of a component counts upwards.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    places = (left[:, :2] * lengths[:2] * signs[:2])[: len(codes) - short[0][1]]
    shares = lengths[:2] ** 2 / max(float((lengths**2).sum()), 1e-12)
    return np.asarray(places), np.asarray(shares)
