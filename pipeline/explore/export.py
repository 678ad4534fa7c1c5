"""The page as one file that works offline: people's brains along directions, made beforehand."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.explore.brains import BrainRequest
from pipeline.explore.engine import Engine
from pipeline.explore.layouts import available_layouts
from pipeline.explore.region_bars import RegionBars
from pipeline.explore.server import PAGE, layout_document, levels, study_document
from pipeline.runtime.files import write_atomic
from pipeline.runtime.progress import few, progress
from schemas.errors import ContractError, ParamsError, PipelineError
from schemas.grid import Grid

MODULES = (
    *("base", "source", "kept", "slices", "volume_view", "panes", "charts", "state", "words"),
    *("maker", "scatter", "controls", "takeaway", "main"),
)
"""The page's scripts, what is imported first."""
PEOPLE = 3
REACH = 3.0
"""Furthest place along a direction (SD)."""
LARGEST_AXIS = 96
"""Volumes with a longer axis are halved, so that the file can be sent by mail."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
HALVED = 2

Volume = NDArray[np.uint8]


def export_page(engine: Engine, out: Path, *, scans: Sequence[str] = (), places: int = 7) -> int:
    """Write the page with the brains of some scans along every direction; return its bytes.

    Raises
    ------
    ParamsError
        If a scan is not the study's.
    ContractError
        If there is nothing to move along, or the models do not fit.
    """
    study = engine.study
    if out.is_dir():
        raise ParamsError(f"--export {out}: a folder, expected the name of an HTML file")
    if not engine.directions.documents:
        reason = study.notes[-1] if study.notes else "the study has no directions"
        raise ContractError(f"--export: {reason.rstrip('.')}")
    chosen = list(dict.fromkeys(scans)) or _default_people(engine)
    unknown = [scan for scan in chosen if scan not in study.scan_ids]
    if unknown:
        raise ParamsError(f"--scan {few(unknown)}: not in {study.paths.manifest} and its stores")
    engine.start()
    scales = _scales(places)
    grid = engine.grid()
    packed: dict[str, str] = {}
    regions: dict[str, Any] = {}
    bars = RegionBars(grid=grid)
    requests = [
        BrainRequest(kind="move", scan=scan, direction=name, scale=scale)
        for scan in chosen
        for name in engine.directions.by_name
        for scale in scales
    ]
    for request in progress(requests, total=len(requests), label="export"):
        volume = engine.make(request).volume
        key = f"{request.scan}|{request.direction}|{_number(request.scale)}"
        packed[f"move|{key}"] = _packed(_small(levels(volume), grid))
        if request.scale:
            regions[key] = _bars(bars, engine, request, volume)
    for scan in chosen:
        if study.volumes is not None and scan in study.volumes.row_of:
            packed[f"real|{scan}"] = _packed(_small(study.volume(scan), grid))
    document = {
        "study": study_document(study, engine) | _settings(grid),
        "layouts": {kind: layout_document(study, kind) for kind in available_layouts(study.y_sem)},
        "people": chosen,
        "scales": scales,
        "regions": {key: found for key, found in regions.items() if found},
        "real": all(f"real|{scan}" in packed for scan in chosen),
    }
    text = page_text(document, packed)
    write_atomic(out, text)
    return len(text.encode())


def page_text(document: dict[str, Any], packed: dict[str, str]) -> str:
    """Return the page with its styles, scripts and data inside."""
    html = PAGE.joinpath("index.html").read_text(encoding="utf-8")
    style = PAGE.joinpath("style.css").read_text(encoding="utf-8")
    html = re.sub(r"<link rel=.*\n", "", html)
    html = re.sub(r"<script .*</script>\n", "", html)
    policy = f'<meta http-equiv="content-security-policy" content="{POLICY}">'
    html = html.replace("<title>", f'{policy}\n<link rel="icon" href="data:,">\n<title>', 1)
    html = html.replace("</head>", f"<style>\n{style}</style>\n</head>", 1)
    niivue = base64.b64encode(PAGE.joinpath("niivue.umd.js.gz").read_bytes()).decode()
    data = [_script(name, text, "text/plain") for name, text in packed.items()]
    data.append(_script("kept-niivue", niivue, "text/plain"))
    data.append(_script("kept-document", json.dumps(document), "application/json"))
    scripts = "\n".join(data) + f'\n<script type="module">\n{bundled()}</script>\n'
    # A function, because a replacement's backslashes would be read as escapes.
    return re.sub("</body>", lambda _: f"{scripts}</body>", html, count=1)


def bundled() -> str:
    """Return the page's scripts as one, without imports and exports."""
    parts = []
    for name in MODULES:
        text = PAGE.joinpath(f"{name}.js").read_text(encoding="utf-8")
        text = re.sub(r"^import .*\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def _script(name: str, text: str, kind: str) -> str:
    """Return data in a script element, from which no text of the study can break out."""
    safe = text.replace("<", "\\u003c") if kind == "application/json" else text
    attribute = name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<script type="{kind}" id="{attribute}">{safe}</script>'


def _default_people(engine: Engine) -> list[str]:
    people, volumes = engine.study.people, engine.study.volumes
    with_volume = people if volumes is None else people[people["scan_id"].isin(volumes.row_of)]
    unseen = with_volume[with_volume["split"] == "test"]
    table = (unseen if len(unseen) else with_volume).drop_duplicates("subject_id")
    return [str(scan) for scan in table["scan_id"][:PEOPLE]]


def _scales(places: int) -> list[float]:
    """Return places on both sides of 0, the own place among them."""
    odd = places + 1 - places % 2
    return [round(float(s), 6) for s in np.linspace(-REACH, REACH, odd)]


def _number(value: float) -> str:
    """Return a number as JavaScript prints it."""
    return json.dumps(value).removesuffix(".0") if value else "0"


def _halved(grid: Grid) -> bool:
    return max(grid.shape) > LARGEST_AXIS


def _small(volume: Volume, grid: Grid) -> Volume:
    if not _halved(grid):
        return volume
    smooth = ndimage.uniform_filter(volume.astype(np.float32), HALVED, origin=-1)
    return np.asarray(np.rint(smooth[::HALVED, ::HALVED, ::HALVED]), dtype=np.uint8)


def _settings(grid: Grid) -> dict[str, Any]:
    """Return what differs from the page that is served."""
    document = grid.document()
    if _halved(grid):
        affine = np.asarray(grid.affine)
        affine = affine @ np.diag([HALVED, HALVED, HALVED, 1.0])
        affine[:3, 3] += np.asarray(grid.affine)[:3, :3].sum(axis=1) / 2
        shape = [-(-n // HALVED) for n in grid.shape]
        document |= {"shape": shape, "affine": affine.tolist()}
    status = {"models": "ready", "problem": None, "full_steps": None, "preview_steps": None}
    return {"grid": document, "status": status | {"prior": False}}


def _packed(volume: Volume) -> str:
    return base64.b64encode(gzip.compress(volume.tobytes(order="F"), 9, mtime=0)).decode()


def _bars(
    bars: RegionBars, engine: Engine, request: BrainRequest, volume: NDArray[np.float32]
) -> dict[str, Any] | None:
    try:
        return bars.change(engine.make(engine.reference(request)).volume, volume)
    except PipelineError:
        return None
