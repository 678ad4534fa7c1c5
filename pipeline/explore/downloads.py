"""What is taken away from the page: NIfTI, and the command that makes the same."""

import re
import shlex
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.applications.nifti.volume_files import SPACE_NAMES, VolumeWriter
from pipeline.explore.brains import BrainRequest
from pipeline.explore.engine import Engine
from schemas.errors import ContractError, ParamsError

Space = Literal["mni", "native"]
COMMANDS = {
    "scan": "reconstruct",
    "move": "manipulate",
    "between": "interpolate",
    "vary": "vary",
    "noise": "generate",
}
"""Kind of a request to the command that makes the same."""


def nifti(engine: Engine, request: BrainRequest, space: Space) -> tuple[str, bytes]:
    """Return name and bytes of the NIfTI that the command of the request writes.

    Raises
    ------
    ParamsError
        If the request is a preview.
    ContractError
        If the way back to native space is not known.
    """
    if request.quality != "full":
        raise ParamsError("download: a preview is not what the command makes; wait for the brain")
    made = engine.make(request)
    assert engine.maker is not None
    scan = engine.scan(request.scan) if request.scan else None
    if space == "native" and (scan is None or scan.native is None):
        raise ContractError(
            "native space: the way back of this brain is not known; take it in MNI152 space"
        )
    grid = engine.maker.models.autoencoder.grid
    writer = VolumeWriter(
        space=space,
        grid_affine=np.asarray(grid.affine, dtype=np.float64),
        made_by=COMMANDS[request.kind],
        scan=scan,
    )
    name = file_name(engine, request, space)
    with tempfile.TemporaryDirectory(prefix="explore-") as folder:
        path = Path(folder) / "volume.nii.gz"
        writer.write(path, made.volume)
        return name, path.read_bytes()


def file_name(engine: Engine, request: BrainRequest, space: Space) -> str:
    """Return the name that the command of the request gives its file, without odd characters."""
    label = engine.label(request)
    of_kind: dict[str, list[str | None]] = {
        "scan": [request.scan],
        "move": [request.scan, "along-" + re.sub("[^A-Za-z0-9]+", "-", request.direction or "")],
        "between": [f"{request.scan}_to_{request.other}"],
        "vary": [request.scan, f"seed-{request.seed}"],
        "noise": [f"seed-{request.seed}", *(["prior"] if request.prior else [])],
    }
    parts = of_kind[request.kind]
    stem = "_".join([*(str(part) for part in parts), label])
    return re.sub(r"[^\w.+-]", "-", f"{stem}_space-{SPACE_NAMES[space]}_T1w.nii.gz", flags=re.ASCII)


def command(engine: Engine, request: BrainRequest, space: Space) -> str:
    """Return the command that makes the same in the study's folder.

    Raises
    ------
    ContractError
        If the models are not loaded yet.
    """
    paths, steps = engine.study.paths, engine.full_steps
    if steps is None:
        raise ContractError("the models are not loaded yet")
    options: dict[str, object] = {}
    if request.kind == "move":
        options |= {"--direction": request.direction, "--scale": request.scale}
    if request.kind == "between":
        options |= {"--a": request.scan, "--b": request.other, "--alpha": request.alpha}
    elif request.scan is not None:
        options["--scan"] = request.scan
    if request.kind in ("vary", "noise"):
        options |= {"--count": 1, "--seed": request.seed}
    if request.kind == "noise":
        options["--method"] = "prior" if request.prior else "denoiser"
        if request.prior:
            options |= {"--semantics": paths.semantics, "--manifest": paths.manifest}
    else:
        options["--latents"] = paths.latents
        if engine.study.volumes is not None:
            options["--volumes"] = paths.volumes
        options["--space"] = space
    words = [word for name, value in options.items() for word in _option(name, f"{value}")]
    words += [*engine.options, "--steps", str(steps), "--out", "made"]
    return shlex.join(["pipeline", COMMANDS[request.kind], *words])


def _option(name: str, value: str) -> list[str]:
    """Return an option's words; a value with a dash in front would be read as another option."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]
