"""Volume store of any input: a store, or images (folder, BIDS, table, DICOM) to preprocess."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.models.frozen import FrozenAutoencoder, for_volumes
from pipeline.runtime.files import real_path, writing_to
from pipeline.sources.kind import detect_source
from schemas.errors import ContractError
from schemas.grid import Grid, GridParams, times
from schemas.params import Params

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InputVolumes:
    """The volume store of an input, and the scans refused in making it."""

    volumes: Path
    quarantine: Path | None
    """quarantine.csv; None if the input was a volume store."""
    quarantined: int
    """Number of refused scans."""


def input_volumes(
    input_path: Path,
    out: Path,
    params: Params,
    *,
    grid: Grid,
    intensity: dict[str, Any] | None = None,
    workers: int,
    scheduler: str | None,
    device: str = "cpu",
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> InputVolumes:
    """Return the volume store of an input, after preprocessing if the input is images.

    `asked` are the parameters set by hand, {section.key: value}: the kind of the input and the
    meaning of its columns are taken from them, not from the parameters of a study. Images are
    preprocessed onto `grid`, with the intensity scale that the autoencoder expects (`intensity`,
    see `frozen.intensity_rule`). The results stay in `<out>.input/`, so that a second call redoes
    nothing.

    Raises
    ------
    ContractError
        If the input is missing or holds no image.
    """
    source = detect_source(input_path)
    if source == "volumes":
        return InputVolumes(input_path, None, 0)
    # Heavy, and not needed for a volume store.
    from pipeline.cohort.candidates import candidates_of
    from pipeline.cohort.ingest import build_cohort
    from pipeline.cohort.manifest import write_manifest
    from pipeline.preprocessing.run import preprocess_cohort

    if "cohort.source" in asked and asked["cohort.source"] in ("bids", "folder", "table", "dicom"):
        source = asked["cohort.source"]
    work = work_of(out)
    cohort = params.cohort.model_copy(update={"source": source})
    by_hand = any(key.startswith("cohort.columns") for key in asked)
    if source != params.cohort.source and not by_hand:  # its columns are of the study's table
        cohort = cohort.model_copy(update={"columns": {}})
    scans = build_cohort(cohort, input_path=input_path, cache=work / "dicom", judged=False)
    with writing_to(work):
        write_manifest(scans.manifest, work / "manifest.csv")
    preprocess = params.preprocess.model_copy(
        update={"grid": grid.as_params(), **(intensity or {})}
    )
    quarantine = work / "quarantine.csv"
    log.info(
        "%s: preprocessing onto %s voxels of %g mm; volumes and QC stay there for the next call",
        work,
        times(grid.shape),
        grid.zooms[0],
    )
    with writing_to(work):
        summary = preprocess_cohort(
            scans.manifest,
            preprocess,
            manifest_dir=work,
            out=work / "volumes.zarr",
            qc_csv=work / "qc.csv",
            quarantine_csv=quarantine,
            prior_quarantine=scans.refused,
            workers=workers,
            scheduler=scheduler,
            device=device,
            candidates=candidates_of(scans.candidates, work),
        )
    return InputVolumes(work / "volumes.zarr", quarantine, summary.quarantined)


def grid_asked(asked: GridParams | None, autoencoder: FrozenAutoencoder, *, firm: bool) -> Grid:
    """Return the grid to preprocess onto: the one asked for, else the autoencoder's.

    Raises
    ------
    ContractError
        If the autoencoder cannot encode the grid asked for. Unless that is `firm`, the grid of an
        autoencoder that takes no other is used instead, with a warning.
    """
    if asked is None:
        return autoencoder.grid
    from pipeline.imaging.atlas.mni152 import mni_grid  # it brings nibabel and scipy

    grid = mni_grid(asked)
    if grid.same_voxels(autoencoder.grid):
        return autoencoder.grid
    if not autoencoder.config.get("portable"):
        if not firm:
            log.warning(
                "%s: takes %s alone, which images are brought onto, not preprocess.grid (%s) of"
                " params.yaml",
                autoencoder.path,
                autoencoder.grid,
                grid,
            )
            return autoencoder.grid
        raise ContractError(
            f"preprocess.grid: {grid} was asked for, but {autoencoder.path} takes"
            f" {autoencoder.grid} alone; set that grid, or train an autoencoder on the"
            " other (`pipeline train-ae --set autoencoder.source=train`)"
        )
    return for_volumes(autoencoder, grid).grid


def work_of(out: Path) -> Path:
    """Return the folder beside an output for what is made of its input images on the way."""
    out = real_path(out)
    return out.with_name(out.name.removesuffix(".zarr") + ".input")


def find_volumes(latents: Path) -> Path | None:
    """Return the volume store that a latent store was encoded from, or None.

    It is looked for in the folder that `encode` makes for images, and beside the latent store.
    """
    latents = real_path(latents)
    places = (work_of(latents) / "volumes.zarr", latents.with_name("volumes.zarr"))
    return next((place for place in places if place.is_dir() and place != latents), None)
