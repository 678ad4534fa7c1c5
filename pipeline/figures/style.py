"""One look for every figure: quiet axes, few colours, brains on black, light and dark."""

import base64
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pipeline.runtime.files import write_atomic

DPI = 160
BRAIN_BACKGROUND = "#000000"
BRAIN_INK = "#d7dde5"
DIFFERENCE_MAP = LinearSegmentedColormap.from_list(
    "difference", ["#b9dcff", "#3f8fe0", "#143a66", "#000000", "#6b2414", "#e2643a", "#ffd9b8"]
)
"""Blue below, black at zero, red above; as dark as the page of the brains where nothing differs."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by their role."""

    ink: str
    muted: str
    line: str
    accent: str
    """The representation under test."""
    bound: str
    """The oracle: the best that can be expected."""
    floor: str
    """Chance: what knowing nothing gives."""
    others: tuple[str, ...]
    """Baselines, in the order of their appearance."""

    def colours(self, names: Iterable[str]) -> dict[str, str]:
        """Return a colour for each name: the first is under test, the others begin again."""
        first, *rest = names
        return {first: self.accent} | dict(zip(rest, cycle(self.others), strict=False))

    def __iter__(self) -> Iterator[str]:
        """Give every colour, in the order of the fields."""
        for value in (getattr(self, colour.name) for colour in fields(self)):
            yield from (value,) if isinstance(value, str) else value


LIGHT = Palette(
    ink="#1c2430",
    muted="#64707f",
    line="#dfe4ea",
    accent="#2563a8",
    bound="#1f8a70",
    floor="#9aa5b1",
    others=("#c9772b", "#8a5aa8", "#b4485c", "#5c7a29"),
)
DARK = Palette(
    ink="#e7ebf0",
    muted="#9aa7b6",
    line="#2c353f",
    accent="#74aeea",
    bound="#4cc3a5",
    floor="#748190",
    others=("#e3a35c", "#bd93d8", "#e08596", "#a3c266"),
)


@contextmanager
def figure_style() -> Iterator[Palette]:
    """Apply the look to figures made and saved inside the block; gives the colours they take."""
    palette = LIGHT
    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "axes.titlecolor": palette.ink,
        "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.line,
        "axes.linewidth": 0.9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "auto",
        "grid.color": palette.line,
        "grid.linewidth": 0.7,
        "grid.alpha": 0.7,
        "xtick.color": palette.line,
        "ytick.color": palette.line,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "text.color": palette.ink,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        # Text stays text, so that a figure in the report speaks in the report's own letters.
        "svg.fonttype": "none",
        "svg.hashsalt": "figure",
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        yield palette


def figure_bytes(figure: Figure, kind: str, *, quality: int = 80, dpi: int = DPI) -> bytes:
    """Return a figure as `svg`, `png` or `webp`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    options: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}},
        "webp": {"pil_kwargs": {"quality": quality, "method": 6}},
    }
    figure.savefig(buffer, format=kind, dpi=dpi, **options[kind])
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> bytes:
    """Write a figure as its suffix says (.svg, .png) and return its bytes."""
    data = figure_bytes(figure, path.suffix.removeprefix("."))
    write_atomic(path, data)
    return data


def darkened(svg: bytes) -> bytes:
    """Return a plot drawn in the LIGHT colours in the DARK ones."""
    dark = {a.encode(): b.encode() for a, b in zip(LIGHT, DARK, strict=True)}
    return re.sub(rb"#[0-9a-f]{6}\b", lambda colour: dark.get(colour[0], colour[0]), svg)


def data_uri(data: bytes, kind: str) -> str:
    """Return an image (`svg`, `png`, `webp`) as a data URI, so that a page can carry it."""
    mime = "image/svg+xml" if kind == "svg" else f"image/{kind}"
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
