"""Map of reconstruction error: the mean absolute error in three planes, beside the mean scan."""

import io

import numpy as np
from matplotlib.figure import Figure

from pipeline.figures.brain_slices import PLANES, Volume, brain_box, middle, plane_slice
from pipeline.figures.style import BRAIN_BACKGROUND, BRAIN_INK

STRONGEST = 0.15
"""Mean absolute error (units of intensity) shown in the strongest colour."""


def error_map_png(reference: Volume, error: Volume) -> bytes:
    """Return a picture of volumes (X, Y, Z): the mean scan above, the mean error below."""
    box = brain_box(reference)
    reference, error = (np.asarray(v, dtype=np.float32)[box] for v in (reference, error))
    indices = middle(reference)
    figure = Figure(figsize=(9, 6), facecolor=BRAIN_BACKGROUND, layout="constrained")
    axes = figure.subplots(2, 3)
    for column, plane in enumerate(PLANES):
        for row, (volume, colours, limit) in enumerate(
            ((reference, "gray", 1.0), (error, "inferno", STRONGEST))
        ):
            axis = axes[row, column]
            image = plane_slice(volume, plane, indices[plane])
            shown = axis.imshow(image, cmap=colours, vmin=0, vmax=limit)
            axis.set_axis_off()
        axes[0, column].set_title(plane, color=BRAIN_INK, fontsize=9)
    bar = figure.colorbar(shown, ax=axes[1, :], shrink=0.8)
    bar.set_label("mean absolute error", color=BRAIN_INK)
    bar.ax.tick_params(colors=BRAIN_INK, labelcolor=BRAIN_INK, labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor=BRAIN_BACKGROUND)
    return buffer.getvalue()
