"""Strips of slices on black: generated brains beside real ones, and their differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.figures.brain_slices import DIFFERENCE_LIMIT, brain_box, plane_slice, unit
from pipeline.figures.style import BRAIN_BACKGROUND, BRAIN_INK, DIFFERENCE_MAP

Image = NDArray[np.float32]

AXIAL_MM, CORONAL_MM = 12.0, -18.0
"""MNI152 world z and y of slices through the bodies of the lateral ventricles."""
VEIL = 0.08
"""Intensity below which a voxel of a made volume is taken for background."""
LEFT_INCHES, TITLE_INCHES, WIDTH_INCHES = 0.95, 0.24, 9.6
LETTER_INCHES = 0.065
"""About the width of a letter of a row's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a strip."""

    name: str
    images: Sequence[Image | None]
    """One a column, of one shape; None leaves a gap."""
    difference: bool = False
    """Signed differences, in colour."""


def ventricle_slices(
    volume: NDArray[Any], affine: NDArray[np.float64] | None
) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return an axial and a coronal slice that show the ventricles."""
    x_y_z = volume.shape
    if affine is None:
        return ("axial", x_y_z[2] // 2), ("coronal", x_y_z[1] // 2)
    axial = round((AXIAL_MM - affine[2, 3]) / affine[2, 2])
    coronal = round((CORONAL_MM - affine[1, 3]) / affine[1, 1])
    return (
        ("axial", int(np.clip(axial, 0, x_y_z[2] - 1))),
        ("coronal", int(np.clip(coronal, 0, x_y_z[1] - 1))),
    )


def cut(volume: NDArray[Any], place: tuple[str, int], around: NDArray[Any] | None = None) -> Image:
    """Return a slice in [0, 1], cropped to the brain of `around` (or of the volume itself)."""
    plane, index = place
    # A decoder leaves a faint veil around the brain: no part of it.
    box = brain_box(unit(volume if around is None else around) > VEIL)
    axes = {"axial": (box[0], box[1]), "coronal": (box[0], box[2]), "sagittal": (box[1], box[2])}
    columns, rows = axes[plane]
    image = plane_slice(unit(volume), plane, index)
    # plane_slice turns the rows round: superior and anterior are at the top.
    height = image.shape[0]
    return image[height - rows.stop : height - rows.start, columns]


def image_strip(titles: Sequence[str], rows: Sequence[Row]) -> Figure:
    """Draw rows of slices beneath column titles; blue is darker, red brighter."""
    shapes = [next(i for i in row.images if i is not None).shape for row in rows]
    margin = max(LEFT_INCHES, LETTER_INCHES * (2 + max(len(row.name) for row in rows)))
    cell = (WIDTH_INCHES - margin) / len(titles)
    heights = [cell * shape[0] / shape[1] for shape in shapes]
    total = sum(heights) + TITLE_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, total), facecolor=BRAIN_BACKGROUND)
    top = total - TITLE_INCHES
    for column, title in enumerate(titles):
        figure.text(
            (margin + (column + 0.5) * cell) / WIDTH_INCHES, 1 - 0.5 * TITLE_INCHES / total,
            title, ha="center", va="center", color=BRAIN_INK, fontsize=8.5,
        )  # fmt: skip
    for row, height in zip(rows, heights, strict=True):
        figure.text(
            0.08 / WIDTH_INCHES, (top - height / 2) / total, row.name, ha="left", va="center",
            color=BRAIN_INK, fontsize=8.5,
        )  # fmt: skip
        for column, image in enumerate(row.images):
            if image is None:
                continue
            left = (margin + column * cell + 0.02) / WIDTH_INCHES
            frame = (left, (top - height + 0.02) / total, (cell - 0.04) / WIDTH_INCHES,
                     (height - 0.04) / total)  # fmt: skip
            axis = figure.add_axes(frame)
            axis.set_axis_off()
            limits = (-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT) if row.difference else (0, 1)
            colours = DIFFERENCE_MAP if row.difference else "gray"
            axis.imshow(
                image, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="bicubic",
                aspect="auto",
            )  # fmt: skip
        top -= height
    return figure


def manipulation_strip(
    by_method: dict[str, NDArray[np.uint8]],
    names: dict[str, str],
    scales: Sequence[float],
    affine: NDArray[np.float64] | None,
) -> Figure:
    """Draw each method's volumes (scale, X, Y, Z) against the scale, and what changed from 0."""
    rows = []
    zero = int(np.argmin(np.abs(np.asarray(scales))))
    for method, volumes in by_method.items():
        around = volumes[zero]
        axial, coronal = ventricle_slices(around, affine)
        images = [_beside(cut(v, axial, around), cut(v, coronal, around)) for v in volumes]
        changes = [None if i == zero else image - images[zero] for i, image in enumerate(images)]
        rows.append(Row(names.get(method, method), images))
        rows.append(Row("change", changes, difference=True))
    titles = [f"{scale:+g}".replace("-", "−") if scale else "0" for scale in scales]
    return image_strip(titles, rows)


def _beside(first: Image, second: Image) -> Image:
    """Return two slices side by side, the lower one in the middle of the height."""
    height = max(first.shape[0], second.shape[0])
    padded = []
    for image in (first, second):
        missing = height - image.shape[0]
        rows = (missing // 2, missing - missing // 2)
        padded.append(np.pad(image, (rows, (0, 0))))
    return np.concatenate(padded, axis=1)


def interpolation_strip(
    volumes: dict[str, NDArray[np.uint8]],
    names: dict[str, str],
    affine: NDArray[np.float64] | None,
) -> Figure:
    """Draw the visits and what each method makes of the middle one, with differences from it."""
    return image_strip([names.get(name, name) for name in volumes], _visit_rows(volumes, affine))


def forecast_strip(
    volumes: dict[str, NDArray[np.uint8]],
    spread: NDArray[np.uint8],
    names: dict[str, str],
    affine: NDArray[np.float64] | None,
) -> Figure:
    """Draw the visits and what each method foresees, with differences, and the draws' spread."""
    scan = volumes["scan"]
    last = (None, cut(spread, ventricle_slices(scan, affine)[0], scan), None)
    rows = [
        replace(row, images=[*row.images, image])
        for row, image in zip(_visit_rows(volumes, affine), last, strict=True)
    ]
    return image_strip([names.get(name, name) for name in [*volumes, "spread"]], rows)


def _visit_rows(
    volumes: dict[str, NDArray[np.uint8]], affine: NDArray[np.float64] | None
) -> list[Row]:
    """Return an axial row, one of its differences from the real visit `scan`, a coronal row."""
    scan = volumes["scan"]
    axial, coronal = ventricle_slices(scan, affine)
    images = {name: cut(volume, axial, scan) for name, volume in volumes.items()}
    differences = [None if n == "scan" else i - images["scan"] for n, i in images.items()]
    return [
        Row("axial", list(images.values())),
        Row("minus real", differences, difference=True),
        Row("coronal", [cut(volume, coronal, scan) for volume in volumes.values()]),
    ]


def generation_strip(
    sets: dict[str, NDArray[np.uint8]],
    names: dict[str, str],
    affine: NDArray[np.float64] | None,
    *,
    count: int = 6,
) -> Figure:
    """Draw an axial slice of a few brains of each kind."""
    columns = min(count, min(len(volumes) for volumes in sets.values()))
    rows = []
    for name, volumes in sets.items():
        place, _ = ventricle_slices(volumes[0], affine)
        around = next(iter(sets.values()))[0]
        rows.append(
            Row(names.get(name, name), [cut(volume, place, around) for volume in volumes[:columns]])
        )
    return image_strip([str(i + 1) for i in range(columns)], rows)
