"""Figures of the report: written to a folder, and embedded in the page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.figures.style import (
    Palette,
    darkened,
    data_uri,
    figure_bytes,
    figure_style,
    save_figure,
)

PAGE_DPI = 120
"""Brains inside the page; the files beside it are finer."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the page, as data URIs."""

    uri: str
    dark_uri: str | None
    """Shown where the reader's screen is dark; None shows `uri` everywhere."""


@dataclass(frozen=True, slots=True)
class FigureFolder:
    """The folder beside the report that keeps every figure as a file."""

    path: Path
    quality: int = 80
    """WebP quality of the brains inside the page."""

    def plot(self, name: str, draw: Callable[[Palette], Figure]) -> Picture:
        """Draw a plot for light and dark pages; the light one is kept as `name`.svg."""
        with figure_style() as palette:
            light = save_figure(draw(palette), self.path / f"{name}.svg")
        return Picture(data_uri(light, "svg"), data_uri(darkened(light), "svg"))

    def brains(self, name: str, draw: Callable[[], Figure]) -> Picture:
        """Draw slices; kept as `name`.png, and carried in the page as a smaller WebP."""
        with figure_style():
            figure = draw()
            save_figure(figure, self.path / f"{name}.png")
            small = figure_bytes(figure, "webp", quality=self.quality, dpi=PAGE_DPI)
            return Picture(data_uri(small, "webp"), None)
