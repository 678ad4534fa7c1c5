"""A stand-in for the drawing of slices, which takes most of an export's time."""

import io

import pytest
from PIL import Image

from pipeline.bids_export import pictures


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every picture be one grey pixel."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 128).save(buffer, "PNG")
    monkeypatch.setattr(pictures, "sheet_png", lambda *_, **__: buffer.getvalue())
