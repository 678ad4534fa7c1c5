"""Contact sheets: pictures of the scans that did not pass QC, or of all."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.contact_sheet import draw_sheet
from pipeline.imaging.atlas.mni152 import load_template
from pipeline.imaging.brain import content_mask
from pipeline.imaging.geometry import bounding_box, to_ras
from pipeline.imaging.header import zooms_of
from pipeline.imaging.read import read_scan
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ScanError
from schemas.grid import GridParams

log = logging.getLogger(__name__)


def draw_sheets(
    table: pd.DataFrame, store: VolumeStore, folder: Path, *, max_bytes: int, every: bool = False
) -> list[Path]:
    """Write `<scan_id>.png` for each scan that is not `pass`, or for all; return the files.

    A scan in the store is shown on the grid, with the outline of the template brain. A scan that
    failed has no volume: its image file is shown, turned to RAS. The log names scans whose file
    cannot be read.

    Parameters
    ----------
    table
        QC table, indexed by scan_id.
    """
    grid = GridParams(
        shape=store.attributes.grid.shape,
        zooms=store.attributes.grid.zooms[0],
    )
    rows = {scan_id: row for row, scan_id in enumerate(store.attributes.scan_ids)}
    shown = table if every else table[table["status"] != "pass"]
    written = []
    for scan_id, verdict in progress(shown.iterrows(), total=len(shown), label="Sheets"):
        reasons = verdict["reasons"] if isinstance(verdict["reasons"], str) else ""
        title = f"{scan_id}: {', '.join(filter(None, (verdict['status'], reasons)))}"
        path = folder / f"{scan_id}.png"
        if scan_id in rows:
            _, outline = load_template(grid)
            volume = np.asarray(store.read_row(rows[scan_id]).volume)
            draw_sheet(volume, title, path, outline=outline)
            written.append(path)
        elif _draw_native(Path(str(verdict["path"])), title, path, max_bytes):
            written.append(path)
    return written


def _draw_native(source: Path, title: str, path: Path, max_bytes: int) -> bool:
    try:
        scan = read_scan(source, max_bytes=max_bytes)
    except ScanError as error:
        log.warning("%s: no sheet: %s", path.stem, error)
        return False
    data, affine = to_ras(scan.data, scan.affine)
    data = data[bounding_box(content_mask(data), 1)]
    zooms = [float(zoom) for zoom in zooms_of(affine)]
    draw_sheet(data, f"{title} (file as it is)", path, zooms=zooms)
    return True
