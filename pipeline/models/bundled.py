"""The bundled autoencoder, the choice of one for a command, and adoption into a study."""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.models.artefact import (
    CARD,
    CONFIG,
    METRICS,
    WEIGHTS,
    check_model_folder,
    read_artefact,
    read_config,
    write_artefact,
)
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder, on_grid
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store, write_atomic, write_json
from pipeline.runtime.progress import few
from schemas.errors import ContractError
from schemas.grid import Grid

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parents[1] / "weights" / "ae"
STUDY = Path("models/ae")
MAX_BUNDLED_BYTES = 8_000_000
LOG_FILE = "log.csv"
EMPTY_LOG = "step,seconds,loss\n"


def bundled_autoencoder() -> Path:
    """Return the folder of the bundled autoencoder.

    Raises
    ------
    ContractError
        If this installation carries none.
    """
    if not (BUNDLED / CONFIG).is_file():
        raise ContractError(
            f"{BUNDLED}: this installation carries no autoencoder; train one with"
            " `pipeline train-ae --set autoencoder.source=train`, or give --ae FOLDER"
        )
    return BUNDLED


def find_autoencoder(given: Path | None) -> tuple[Path, str]:
    """Return the folder of the autoencoder to use, and its description in words."""
    if given is not None:
        return given, f"{given}"
    if (STUDY / CONFIG).is_file():
        return STUDY, f"{STUDY}, of this study"
    return bundled_autoencoder(), "the one bundled with the package"


def load_start(named: Path | Literal["bundled"]) -> FrozenAutoencoder:
    """Return the autoencoder that fine-tuning starts from."""
    folder = bundled_autoencoder() if named == "bundled" else Path(named)
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
    check_model_folder(out)
    if not (source / CONFIG).is_file():
        from pipeline.models.conversion.monai_import import import_autoencoder

        with tempfile.TemporaryDirectory() as folder:
            imported = Path(folder) / "ae"
            import_autoencoder(source, imported, device=torch.device("cpu"), assumed_grid=grid)
            return adopt_autoencoder(imported, out, grid=grid)
    frozen = on_grid(load_autoencoder(source, device=torch.device("cpu")), grid)
    metrics = _json(source / METRICS)
    config = frozen.config | {
        "grid": grid.document(),
        "trained_grid": frozen.config.get("trained_grid", frozen.config["grid"]),
        "fingerprint": digest_of(["adopted", frozen.digest, grid.document()]),
    }
    with lock_store(out):
        _warn_of_replaced(out, frozen)
        shutil.rmtree(out.with_name(out.name + ".training"), ignore_errors=True)
        for name in (WEIGHTS, CARD):
            write_atomic(out / name, (source / name).read_bytes())
        log = source / LOG_FILE
        write_atomic(out / LOG_FILE, log.read_text() if log.is_file() else EMPTY_LOG)
        write_json(out / METRICS, metrics)
        write_json(out / CONFIG, config)
    return metrics


def _warn_of_replaced(out: Path, new: FrozenAutoencoder) -> None:
    """Warn if `out` holds another autoencoder, or an unfinished training, that `new` replaces."""
    work = out.with_name(out.name + ".training")
    if work.is_dir():
        log.warning("%s: checkpoints of an unfinished training are discarded", work)
    try:
        former = read_config(out / CONFIG)
    except ContractError:
        return
    if former.get("weights_sha256") != new.digest:
        log.warning("%s: held another autoencoder, replaced by that of %s", out, new.path)


def export_bundled(ae: Path, out: Path, *, card: str | None = None) -> int:
    """Write an autoencoder for the package, in float16; return the size of its weights (bytes).

    `card` replaces the card that training wrote.

    Raises
    ------
    ContractError
        If a weight has no float16 value, or the weights are larger than 8 MB.
    """
    check_model_folder(out)
    artefact = read_artefact(ae, kind="ae")
    halved = {name: tensor.half() for name, tensor in artefact.tensors.items()}
    broken = [name for name, tensor in halved.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ContractError(f"{ae}: {few(broken)}: not finite in float16; train it anew")
    size = sum(tensor.numel() * 2 for tensor in halved.values())
    if size > MAX_BUNDLED_BYTES:
        raise ContractError(
            f"{ae}: {size / 1e6:.1f} MB in float16, expected at most"
            f" {MAX_BUNDLED_BYTES / 1e6:.0f} MB; train fewer channels"
        )
    kept = {k: v for k, v in artefact.config.items() if k not in ("weights_sha256", "made_by")}
    write_artefact(
        out,
        kind="ae",
        tensors=halved,
        config=kept | {"portable": True, "float32_sha256": artefact.digest},
        metrics=_json(ae / METRICS),
        card=card if card is not None else (ae / CARD).read_text(),
    )
    if (ae / LOG_FILE).is_file():
        write_atomic(out / LOG_FILE, (ae / LOG_FILE).read_text())
    load_autoencoder(out, device=torch.device("cpu"))
    return (out / WEIGHTS).stat().st_size


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: expected the metrics of a model; restore it") from error
    return values
