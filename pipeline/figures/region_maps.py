"""Pictures of numbers by region: a glass brain and slices, drawn by nilearn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

WIDTH, HEIGHT = 9.6, 2.9
BRAIN, BAR = (0.0, 0.0, 0.92, 1.0), (0.96, 0.05, 0.015, 0.9)
"""Left, bottom, width and height (shares of the figure) of the brain and of its colour bar."""
COLOURS = "RdBu_r"
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


def region_figures(
    atlas: Regions, groups: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[str, str, Figure]]:
    """Yield group, `glass` or `slices`, and a figure: regions in the colour of their values (%).

    Red is above 0. A figure is to be used before the next is asked for: brains are drawn once, and
    all groups shown in them, with the slices of the first.
    """
    drawn: dict[str, _Brain] = {}
    for title, values in groups.items():
        known = {name: value for name, value in values.items() if np.isfinite(value)}
        if not known:
            continue
        of_label = np.zeros(int(atlas.labels.max()) + 1, np.float32)
        for label, name in atlas.regions.items():
            of_label[label] = known.get(name, 0.0)
        image = nib.Nifti1Image(of_label[atlas.labels], atlas.affine)
        limit = max(float(np.abs(list(known.values())).max()), LEAST_LIMIT)
        for kind in ("glass", "slices"):
            if kind in drawn:
                drawn[kind].show(image, limit)
            else:
                drawn[kind] = _Brain(kind, image, limit)
            with drawn[kind].titled(title) as figure:
                yield title, kind, figure


class _Brain:
    """A brain that nilearn drew once, and the values shown in it."""

    def __init__(self, kind: str, image: nib.Nifti1Image, limit: float) -> None:
        from nilearn import plotting

        self.figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        room = {"figure": self.figure, "axes": BRAIN, "colorbar": False}
        if kind == "glass":
            self.background = 0
            self.display = plotting.plot_glass_brain(
                image, display_mode="lyrz", plot_abs=False, **room, **_look(limit)
            )
        else:
            self.background = 1
            self.display = plotting.plot_stat_map(
                image, display_mode="z", cut_coords=7, **room, **_look(limit)
            )
        self.bar = self.figure.add_axes(BAR)
        self._scale(limit)

    def show(self, image: nib.Nifti1Image, limit: float) -> None:
        """Show other values, in colours of their own scale."""
        for cut in self.display.axes.values():
            for values in list(cut.ax.images)[self.background :]:
                values.remove()
        self.display.add_overlay(image, interpolation="nearest", **_look(limit))
        self._scale(limit)

    @contextmanager
    def titled(self, title: str) -> Iterator[Figure]:
        """Give the figure under a title, which is taken off again."""
        before = self._texts()
        self.display.title(title)
        yield self.figure
        for text in self._texts():
            if text not in before:
                text.remove()

    def _scale(self, limit: float) -> None:
        self.bar.clear()
        colours = ScalarMappable(Normalize(-limit, limit), COLOURS)
        ticks = np.linspace(-limit, limit, 5)
        self.figure.colorbar(colours, cax=self.bar, ticks=ticks, format="%.2g")
        self.bar.yaxis.tick_left()
        self.bar.yaxis.set_tick_params(width=0)

    def _texts(self) -> list[Text]:
        return [text for cut in self.display.axes.values() for text in cut.ax.texts]


def _look(limit: float) -> dict[str, Any]:
    return {"threshold": 1e-6, "vmin": -limit, "vmax": limit, "cmap": COLOURS}
