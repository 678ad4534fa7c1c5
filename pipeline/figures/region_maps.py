"""Pictures of numbers by region: a glass brain and slices, drawn by nilearn."""

from collections.abc import Mapping
from typing import Protocol

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH, HEIGHT = 9.6, 2.9
LEAST_LIMIT = 0.5
"""Ends of the colour scale lie at least so far (%) from 0: noise shall not look like an effect."""


class Regions(Protocol):
    """An atlas, as `imaging.atlas.parcellation` has it."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """(X, Y, Z)."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4)."""

    @property
    def regions(self) -> dict[int, str]:
        """Label to name."""


def region_figures(atlas: Regions, values: Mapping[str, float], *, title: str) -> dict[str, Figure]:
    """Return `glass` and `slices`: each region in the colour of its value (%), red above 0."""
    from nilearn import plotting

    known = {name: value for name, value in values.items() if np.isfinite(value)}
    if not known:
        return {}
    of_label = np.zeros(int(atlas.labels.max()) + 1, np.float32)
    for label, name in atlas.regions.items():
        of_label[label] = known.get(name, 0.0)
    image = nib.Nifti1Image(of_label[atlas.labels], atlas.affine)
    limit = max(float(np.abs(list(known.values())).max()), LEAST_LIMIT)
    shared = {"vmax": limit, "vmin": -limit, "cmap": "RdBu_r", "colorbar": True}
    figures = {}
    for kind in ("glass", "slices"):
        figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        if kind == "glass":
            plotting.plot_glass_brain(
                image, display_mode="lyrz", plot_abs=False, figure=figure, title=title,
                threshold=1e-6, symmetric_cbar=True, **shared,
            )  # fmt: skip
        else:
            plotting.plot_stat_map(
                image, display_mode="z", cut_coords=7, figure=figure, title=title,
                threshold=1e-6, symmetric_cbar=True, **shared,
            )  # fmt: skip
        figures[kind] = figure
    return figures
