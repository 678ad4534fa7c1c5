"""A film of brains: three planes through a voxel, there and back, as GIF or MP4."""

import io
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.explore.brains import BrainRequest
from pipeline.explore.engine import Engine
from schemas.errors import ParamsError

FilmKind = Literal["gif", "mp4"]
PLANE_HEIGHT = 220
"""Of the planes (pixels)."""
FRAME_MS = 180
MOST_FRAMES = 41
SYNTHETIC = "made by a model; not for diagnosis"
QUALITY = "16"
"""x264's constant rate factor: 18 is told from the original by few, lower is finer."""


def film(
    engine: Engine,
    requests: list[BrainRequest],
    voxel: tuple[int, int, int],
    captions: list[str],
    kind: FilmKind = "gif",
) -> bytes:
    """Return a film that goes through the brains and back.

    Raises
    ------
    ParamsError
        If there are too many or too few frames, or what writes an MP4 is not installed.
    """
    if not 2 <= len(requests) <= MOST_FRAMES or len(captions) != len(requests):
        raise ParamsError(f"film: {len(requests)} frames, expected 2 to {MOST_FRAMES}")
    if kind == "mp4" and find_spec("av") is None:  # before any brain is made
        raise ParamsError(
            "MP4: needs PyAV, which is not installed: pip install 'ldae-pipeline[film]', and"
            " start this page again; a GIF needs nothing"
        )
    frames = [
        _frame(engine.make(request).volume, voxel, caption)
        for request, caption in zip(requests, captions, strict=True)
    ]
    frames += frames[-2:0:-1]
    return _mp4(frames) if kind == "mp4" else _gif(frames)


def _gif(frames: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return file.getvalue()


def _mp4(frames: list[Image.Image]) -> bytes:
    """Return the frames as H.264 in 4:2:0, which every player takes; so both sides are even."""
    import av  # an extra: its wheel brings FFmpeg, x264 among it

    file, (width, height) = io.BytesIO(), frames[0].size
    box = (0, 0, width + width % 2, height + height % 2)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1000, FRAME_MS))
        stream.width, stream.height, stream.pix_fmt = box[2], box[3], "yuv420p"
        stream.options = {"crf": QUALITY}
        for frame in frames:
            picture = av.VideoFrame.from_image(frame.crop(box).convert("RGB"))
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def _frame(volume: NDArray[np.float32], voxel: tuple[int, int, int], caption: str) -> Image.Image:
    x, y, z = (min(max(0, at), n - 1) for at, n in zip(voxel, volume.shape, strict=True))
    planes = [volume[:, :, z], volume[:, y, :], volume[x, :, :]]
    pictures = []
    for plane in planes:
        grey = np.rint(255 * plane.T[::-1]).clip(0, 255).astype(np.uint8)
        width = round(PLANE_HEIGHT * grey.shape[1] / grey.shape[0])
        pictures.append(
            Image.fromarray(grey).resize((width, PLANE_HEIGHT), Image.Resampling.BICUBIC)
        )
    frame = Image.new("L", (sum(p.width for p in pictures), PLANE_HEIGHT + 44), 0)
    left = 0
    for picture in pictures:
        frame.paste(picture, (left, 0))
        left += picture.width
    draw = ImageDraw.Draw(frame)
    draw.text((10, PLANE_HEIGHT + 4), caption[:90], fill=235, font=_font(14))
    draw.text((10, PLANE_HEIGHT + 24), SYNTHETIC, fill=150, font=_font(11))
    return frame


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return a font that has the minus sign, which Pillow's own shows as a box."""
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
