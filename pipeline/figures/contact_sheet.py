"""A contact sheet of one scan: rows of sagittal, coronal and axial slices."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.runtime.files import write_atomic

SHEET_SLICES = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
"""Where the planes of a sheet cut, as shares of each axis."""
SHEET_INCHES = (1.7 * len(SHEET_SLICES), 5.6)


def draw_sheet(
    volume: npt.NDArray[Any],
    title: str,
    path: Path,
    *,
    outline: npt.NDArray[np.bool_] | None = None,
    zooms: Sequence[float] = (1, 1, 1),
) -> None:
    """Write the PNG of `sheet_png` to a file, whole or not at all."""
    write_atomic(path, sheet_png(volume, title, outline=outline, zooms=zooms))


def sheet_png(
    volume: npt.NDArray[Any],
    title: str,
    *,
    outline: npt.NDArray[np.bool_] | None = None,
    outlined: str = "the template brain",
    zooms: Sequence[float] = (1, 1, 1),
) -> bytes:
    """Return a PNG of one RAS volume: rows of sagittal, coronal and axial slices.

    Parameters
    ----------
    volume
        (X, Y, Z), arbitrary units; drawn from 0 to its 99.5th percentile.
    outline
        (X, Y, Z), drawn as a line: where the template brain lies.
    outlined
        What the line stands for, for the key.
    zooms
        Voxel sizes along x, y, z (mm), so that thick slices are drawn to scale.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = volume[volume > 0]
    high = float(np.percentile(content, 99.5)) if content.size else 1.0
    below = 0.005 if outline is None else 0.035
    figure = Figure(figsize=SHEET_INCHES, facecolor="black")
    FigureCanvasAgg(figure)
    # One panel for all slices: making eighteen takes half of the time.
    panel = figure.add_axes((0.005, below, 0.99, 0.905 - below), frameon=False)
    cell = (SHEET_INCHES[0] * 0.99 / len(SHEET_SLICES), SHEET_INCHES[1] * (0.905 - below) / 3)
    for axis in range(3):
        across, up = (i for i in range(3) if i != axis)
        size = (volume.shape[across] * zooms[across], volume.shape[up] * zooms[up])
        for column, share in enumerate(SHEET_SLICES):
            index, extent = int(share * volume.shape[axis]), _place(size, cell, column, axis)
            picture = np.rot90(volume.take(index, axis))
            panel.imshow(picture, cmap="gray", vmin=0, vmax=high, extent=extent)
            # A contour of a plane without an edge would warn.
            if outline is not None and outline.take(index, axis).any():
                plane = np.rot90(outline.take(index, axis)).astype(float)
                panel.contour(
                    plane,
                    levels=[0.5],
                    colors="tab:orange",
                    linewidths=0.7,
                    origin="upper",
                    extent=extent,
                )
    panel.set(xlim=(0, cell[0] * len(SHEET_SLICES)), ylim=(0, 3 * cell[1]), aspect="auto")
    panel.set_axis_off()
    figure.suptitle(title, fontsize=8, color="white", wrap=True)
    if outline is not None:
        key = f"orange: outline of {outlined}"
        figure.text(0.5, 0.008, key, fontsize=7, color="tab:orange", ha="center")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, facecolor="black")
    return png.getvalue()


def _place(
    size: tuple[float, float], cell: tuple[float, float], column: int, row: int
) -> tuple[float, float, float, float]:
    """Return (left, right, bottom, top) of a slice in its cell, to scale; the first row is up."""
    scale = 0.98 * min(cell[0] / size[0], cell[1] / size[1])
    x, y = cell[0] * (column + 0.5), cell[1] * (2.5 - row)
    half = (scale * size[0] / 2, scale * size[1] / 2)
    return (x - half[0], x + half[0], y - half[1], y + half[1])
