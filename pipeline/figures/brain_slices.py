"""Pictures of volumes: slices on black, left of the picture is left of the patient.

Volumes are RAS (X, Y, Z), in [0, 1] or as 256 grey levels (uint8).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from pipeline.figures.style import BRAIN_BACKGROUND, BRAIN_INK, DIFFERENCE_MAP

Volume = NDArray[np.floating]

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane to the axis it is perpendicular to."""
DIFFERENCE_LIMIT = 0.3
"""Difference (in units of intensity) shown in the strongest colour."""
WARN_COLOUR = "#e0a03c"
FRAME_COLOUR = "#2c333c"


def unit(volume: NDArray[Any]) -> Volume:
    """Return a volume in [0, 1] as float32; grey levels (uint8) are divided by 255."""
    scale = 255 if volume.dtype == np.uint8 else 1
    return np.asarray(volume, dtype=np.float32) / np.float32(scale)


def plane_slice(volume: NDArray[Any], plane: str, index: int) -> NDArray[Any]:
    """Return a slice as an image: rows from the top (superior or anterior) down."""
    image: NDArray[Any] = np.take(volume, index, axis=PLANES[plane]).T[::-1]
    return image


def brain_box(volume: NDArray[Any], margin: int = 2) -> tuple[slice, slice, slice]:
    """Return the box around all non-zero voxels, with a margin (voxels); all if there is none."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero((volume > 0).any(axis=others))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, volume.shape[axis])
        box.append(slice(max(0, low - margin), min(volume.shape[axis], high + margin)))
    return box[0], box[1], box[2]


def middle(volume: NDArray[Any]) -> dict[str, int]:
    """Return, for each plane, the slice through the middle of the brain's mass."""
    indices = {}
    for plane, axis in PLANES.items():
        mass = volume.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
        positions = np.arange(len(mass))
        indices[plane] = int(np.average(positions, weights=mass)) if mass.sum() else len(mass) // 2
    return indices


def reconstruction_strip(
    reference: Volume, predictions: Mapping[str, Volume], names: Mapping[str, str] | None = None
) -> Figure:
    """Draw the reference and each prediction in three planes, and the signed difference beside.

    Differences are prediction minus reference: blue too dark, red too bright.
    """
    names = names or {}
    box = brain_box(reference)
    reference = unit(reference)[box]
    indices = middle(reference)
    widths = [plane_slice(reference, plane, 0).shape[1] for plane in PLANES]
    height = max(plane_slice(reference, plane, 0).shape[0] for plane in PLANES)
    rows = {"reference": reference} | {
        name: unit(volume)[box] for name, volume in predictions.items()
    }
    inch = 9.6 / (2 * sum(widths) + 12)
    figure = Figure(figsize=(9.6, inch * (height + 3) * len(rows)), facecolor=BRAIN_BACKGROUND)
    grid = figure.add_gridspec(
        len(rows), 7, width_ratios=[*widths, 6, *widths],
        left=0.035, right=0.995, top=0.965, bottom=0.01, wspace=0.03, hspace=0.06,
    )  # fmt: skip
    for r, (name, volume) in enumerate(rows.items()):
        for c, plane in enumerate(PLANES):
            axis = figure.add_subplot(grid[r, c])
            image = _padded(plane_slice(volume, plane, indices[plane]), height)
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
            _bare(axis)
            if r == 0:
                axis.set_title(
                    plane, color=BRAIN_INK, fontsize=8.5, fontweight="normal", loc="center", pad=3
                )
            if c == 0:
                axis.text(
                    -0.06, 0.5, names.get(name, name), transform=axis.transAxes, rotation=90,
                    va="center", ha="right", color=BRAIN_INK, fontsize=8.5,
                )  # fmt: skip
            if name != "reference":
                axis = figure.add_subplot(grid[r, 4 + c])
                original = plane_slice(reference, plane, indices[plane])
                difference = image - _padded(original, height)
                axis.imshow(
                    difference, cmap=DIFFERENCE_MAP, vmin=-DIFFERENCE_LIMIT, vmax=DIFFERENCE_LIMIT,
                    interpolation="bicubic",
                )  # fmt: skip
                _bare(axis)
    first = names.get("reference", "reference")
    _difference_key(figure, figure.add_subplot(grid[0, 4:]), f"difference from {first}")
    return figure


def _difference_key(figure: Figure, axis: mpl.axes.Axes, title: str) -> None:
    axis.axis("off")
    inset = axis.inset_axes((0.2, 0.42, 0.6, 0.07))
    scale = mpl.cm.ScalarMappable(Normalize(-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT), DIFFERENCE_MAP)
    bar = figure.colorbar(scale, cax=inset, orientation="horizontal")
    bar.set_ticks([-DIFFERENCE_LIMIT, 0, DIFFERENCE_LIMIT])
    bar.ax.tick_params(colors=BRAIN_INK, labelcolor=BRAIN_INK, labelsize=8, length=0)
    bar.outline.set_visible(False)
    axis.text(
        0.5, 0.58, title, transform=axis.transAxes, ha="center",
        color=BRAIN_INK, fontsize=8.5,
    )  # fmt: skip


def _bare(axis: mpl.axes.Axes) -> None:
    axis.set_axis_off()
    axis.grid(visible=False)


@dataclass(frozen=True, slots=True)
class Tile:
    """One scan of a mosaic."""

    label: str
    volume: NDArray[np.uint8]
    """(X, Y, Z), 0 to 255."""
    warn: bool = False


def qc_mosaic(tiles: Sequence[Tile], *, columns: int = 4) -> Figure:
    """Draw three planes of each scan; a scan with a warning has its name in amber."""
    columns = min(columns, len(tiles))
    num_rows = -(-len(tiles) // columns)
    montages = [_montage(tile.volume) for tile in tiles]
    height, width = montages[0].shape
    cell = 9.6 / columns
    text = 0.2
    cell_height = cell * height / width + text
    figure = Figure(figsize=(9.6, cell_height * num_rows + 0.06), facecolor=BRAIN_BACKGROUND)
    total = cell_height * num_rows + 0.06
    for i, (tile, montage) in enumerate(zip(tiles, montages, strict=True)):
        row, column = divmod(i, columns)
        top = 1 - (row * cell_height + 0.03) / total
        left = column / columns
        frame = (left + 0.004, top - cell_height / total, 1 / columns - 0.008,
                 (cell_height - text) / total)  # fmt: skip
        axis = figure.add_axes(frame)
        axis.imshow(montage, cmap="gray", vmin=0, vmax=255, interpolation="bicubic", aspect="auto")
        _bare(axis)
        cell_frame = Rectangle(
            (left + 0.002, top - (cell_height - 0.03) / total),
            1 / columns - 0.004,
            (cell_height - 0.03) / total,
            fill=False,
            edgecolor=FRAME_COLOUR,
            linewidth=0.6,
        )
        figure.add_artist(cell_frame)
        figure.text(
            left + 0.5 / columns, top - 0.5 * text / total, tile.label, ha="center", va="center",
            color=WARN_COLOUR if tile.warn else BRAIN_INK, fontsize=6.5,
        )  # fmt: skip
    return figure


def _montage(volume: NDArray[Any]) -> NDArray[np.float32]:
    indices = middle(volume)
    images = [plane_slice(volume, plane, indices[plane]) for plane in PLANES]
    height = max(image.shape[0] for image in images)
    return np.concatenate([_padded(image, height) for image in images], axis=1)


def _padded(image: NDArray[Any], height: int) -> NDArray[np.float32]:
    missing = height - image.shape[0]
    rows = (missing // 2, missing - missing // 2)
    return np.pad(np.asarray(image, dtype=np.float32), (rows, (0, 0)))


@dataclass(frozen=True, slots=True)
class Sprite:
    """Slices of several volumes side by side, one frame below the other."""

    webp: bytes
    frames: int
    aspect: float
    """Width over height of one frame."""


def slice_sprite(
    volumes: Sequence[Volume],
    plane: str,
    *,
    frames: int = 32,
    panel_pixels: int = 260,
    quality: int = 80,
) -> Sprite:
    """Return a sprite that runs through the brain of the first volume in one plane."""
    box = brain_box(volumes[0])
    cropped = [unit(volume)[box] for volume in volumes]
    depth = cropped[0].shape[PLANES[plane]]
    indices = np.unique(np.linspace(2, depth - 3, min(frames, max(1, depth - 4))).round())
    strips = []
    for index in indices.clip(0, depth - 1).astype(int).tolist():
        images = [plane_slice(volume, plane, index) for volume in cropped]
        image = (np.concatenate(images, axis=1).clip(0, 1) * 255).round().astype(np.uint8)
        scale = panel_pixels / images[0].shape[1]
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        strips.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(strips)).save(buffer, format="WEBP", quality=quality, method=6)
    height, width = strips[0].shape
    return Sprite(buffer.getvalue(), len(strips), width / height)
