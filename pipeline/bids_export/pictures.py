"""Pictures of one scan for its page: the mask on the file, and the brain on MNI152."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from pipeline.figures.contact_sheet import sheet_png
from pipeline.imaging.atlas.mni152 import load_template
from pipeline.imaging.geometry import bounding_box, to_ras
from pipeline.imaging.header import Affine, zooms_of
from pipeline.imaging.read import read_scan
from pipeline.stores.volumes import VolumeRow
from schemas.errors import ScanError
from schemas.grid import GridParams

SHOWN_MM = 8.0
"""How far (mm) around the brain a scan is shown: enough to judge its mask, and no face."""
QUALITY = 80


def draw_pictures(
    row: VolumeRow,
    affine: Affine,
    native: npt.NDArray[np.bool_] | None,
    image: Path | None,
    max_bytes: int,
) -> dict[str, str]:
    """Return title → data URI of a scan's pictures.

    Parameters
    ----------
    affine
        (4, 4), voxel of the volume to MNI152 world (mm).
    native
        The brain mask (X, Y, Z) on the scan's own grid; None where it is not known.
    image
        The scan's file; without it, or if it cannot be read, its picture is left out.
    """
    pictures = {}
    if native is not None and image is not None and native.any():
        title = "Before registration: the file as it lies, with the brain mask"
        if (png := _on_file(image, native, max_bytes, title)) is not None:
            pictures[title] = _webp(png)
    shape: tuple[int, int, int] = row.volume.shape
    grid = GridParams(shape=shape, zooms=float(zooms_of(affine).mean()))
    _, template = load_template(grid)
    title = "After registration: on MNI152, with the template's brain"
    pictures[title] = _webp(sheet_png(row.volume, title, outline=template))
    return pictures


def _on_file(path: Path, mask: npt.NDArray[np.bool_], max_bytes: int, title: str) -> bytes | None:
    try:
        scan = read_scan(path, max_bytes=max_bytes)
    except (ScanError, OSError):
        return None
    if scan.data.shape != mask.shape:
        return None
    data, affine = to_ras(scan.data, scan.affine)
    inside, _ = to_ras(mask, scan.affine)
    zooms = zooms_of(affine)
    box = bounding_box(inside, np.ceil(1.5 * SHOWN_MM / zooms).astype(np.int64))
    data, inside = data[box], inside[box]
    near = ndimage.distance_transform_edt(~inside, sampling=zooms) <= SHOWN_MM
    return sheet_png(
        np.where(near, data, 0),
        title,
        outline=inside,
        outlined="the brain mask",
        zooms=[float(zoom) for zoom in zooms],
    )


def _webp(png: bytes) -> str:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
