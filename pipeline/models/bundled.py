"""The bundled autoencoder, the choice of one for a command, and adoption into a study."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.models.artefact import read_artefact
from pipeline.models.finished_model import copy_model, warn_of_replaced, write_bundled
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder, on_grid
from pipeline.models.model_folder import CONFIG, WEIGHTS, check_model_folder
from pipeline.models.places import BUNDLED, BUNDLED_1_5MM, STUDY
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store
from schemas.errors import ContractError
from schemas.grid import Grid

MAX_BUNDLED_BYTES = 8_000_000
TRAINED_ZOOMS = (1.5, 3.0)
"""Voxel sizes (mm) that the bundled autoencoders were trained on."""
FINE_FACTOR = 8
"""Downsampling factor of the one of 1.5 mm."""


def bundled_autoencoder(
    zooms: float = 3.0,
    shape: tuple[int, ...] | None = None,
    *,
    factor: Literal["auto", 4, 8] = "auto",
) -> Path:
    """Return the folder of the bundled autoencoder for voxels of this size (mm).

    There is one of 3 mm and one of 1.5 mm: the one whose own voxel size is nearer, as a ratio. A
    grid of a `shape` that the one of 1.5 mm cannot take, as it halves it thrice, gets that of 3 mm.
    A `factor` names the downsampling: 4 the one of 3 mm, 8 the one of 1.5 mm, whatever the voxels.

    Raises
    ------
    ContractError
        If this installation carries none.
    """
    fits = shape is None or not any(n % FINE_FACTOR for n in shape)
    is_fine = fits and zooms**2 < TRAINED_ZOOMS[0] * TRAINED_ZOOMS[1]
    if factor != "auto":
        is_fine = factor == FINE_FACTOR
    folder = BUNDLED_1_5MM if is_fine else BUNDLED
    if not (folder / CONFIG).is_file():
        raise ContractError(
            f"{folder}: this installation carries no autoencoder; train one with"
            " `pipeline train-ae --set autoencoder.source=train`, or give --ae FOLDER"
        )
    return folder


def bundled_description(folder: Path) -> str:
    """Return what to call a bundled autoencoder."""
    fine, coarse = TRAINED_ZOOMS
    zooms = fine if folder == BUNDLED_1_5MM else coarse
    return f"the one for {zooms:g} mm bundled with the package"


def find_autoencoder(
    given: Path | None, *, zooms: float = 3.0, shape: tuple[int, ...] | None = None
) -> tuple[Path, str]:
    """Return the folder of the autoencoder to use, and its description in words.

    Voxel size (mm) and shape of the grid choose among the bundled ones.
    """
    if given is not None:
        return given, f"{given}"
    if (STUDY / CONFIG).is_file():
        return STUDY, f"{STUDY}, of this study"
    folder = bundled_autoencoder(zooms, shape)
    return folder, bundled_description(folder)


def load_start(
    named: Path | Literal["bundled"],
    *,
    zooms: float = 3.0,
    factor: Literal["auto", 4, 8] = "auto",
) -> FrozenAutoencoder:
    """Return the autoencoder that fine-tuning starts from, on volumes of this voxel size (mm)."""
    folder = bundled_autoencoder(zooms, factor=factor) if named == "bundled" else Path(named)
    return load_autoencoder(folder, device=torch.device("cpu"))


def adopt_autoencoder(source: Path, out: Path, *, grid: Grid) -> dict[str, Any]:
    """Copy a finished autoencoder into a study, for volumes on `grid`; return its metrics.

    A checkpoint or MONAI bundle is imported first. Weights of this project are copied byte for
    byte, so their digest stays. The config keeps the grid that they were trained on.

    Raises
    ------
    ContractError
        If the source is damaged, or the grid is no multiple of its downsampling factor.
    """
    check_model_folder(out, kind="ae")
    if not (source / CONFIG).is_file():
        from pipeline.models.conversion.monai_import import import_autoencoder

        with tempfile.TemporaryDirectory() as folder:
            imported = Path(folder) / "ae"
            import_autoencoder(source, imported, device=torch.device("cpu"), assumed_grid=grid)
            return adopt_autoencoder(imported, out, grid=grid)
    # Of a model of the package it is known that its weights fit: no network is built.
    known = source in (BUNDLED, BUNDLED_1_5MM)
    frozen = on_grid(load_autoencoder(source, device=torch.device("cpu"), at_use=known), grid)
    config = frozen.config | {
        "grid": grid.document(),
        "trained_grid": frozen.config.get("trained_grid", frozen.config["grid"]),
        "fingerprint": digest_of(["adopted", frozen.digest, grid.document()]),
    }
    with lock_store(out):
        warn_of_replaced(out, source, frozen.digest)
        return copy_model(source, out, config=config)


def export_bundled(ae: Path, out: Path, *, card: str | None = None) -> int:
    """Write an autoencoder for the package, in float16; return the size of its weights (bytes).

    `card` replaces the card that training wrote.

    Raises
    ------
    ContractError
        If a weight has no float16 value, or the weights are larger than 8 MB.
    """
    check_model_folder(out, kind="ae")
    artefact = read_artefact(ae, kind="ae")
    halved = {name: tensor.half() for name, tensor in artefact.tensors.items()}
    config = {"portable": True}
    write_bundled(artefact, halved, out, config=config, most=MAX_BUNDLED_BYTES, card=card)
    load_autoencoder(out, device=torch.device("cpu"))
    return (out / WEIGHTS).stat().st_size
