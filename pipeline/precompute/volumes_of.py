"""Get from whatever the user has (a store, a folder, BIDS, a table, DICOM) to a volume store."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort.ingest import build_manifest, detect_source
from pipeline.cohort.manifest import write_manifest
from pipeline.precompute.preprocess import preprocess_cohort
from pipeline.stores.builder import real_path, writing_to
from schemas.params import GridParams, Params

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MadeVolumes:
    """A volume store, and what was refused on the way."""

    volumes: Path
    quarantine: Path | None
    quarantined: int


def volumes_of(
    input_path: Path,
    out: Path,
    params: Params,
    *,
    grid: dict[str, Any],
    intensity: dict[str, Any] | None = None,
    workers: int,
    scheduler: str | None,
) -> MadeVolumes:
    """Return the volume store of an input, preprocessing it where it is none.

    Preprocessing goes to the grid of the autoencoder, and scales intensities as that expects where
    it tells (`intensity`, see `frozen.intensity_rule`); its results stay in `<out>.input/`, so that
    a second call redoes nothing.

    Raises
    ------
    ContractError
        If the input is missing or holds no image.
    """
    source = detect_source(input_path)
    if source == "volumes":
        return MadeVolumes(input_path, None, 0)
    work = _work_of(real_path(out))
    cohort = params.cohort.model_copy(update={"source": source})
    if source != params.cohort.source:  # those are the columns of the study's own table
        cohort = cohort.model_copy(update={"columns": {}})
    manifest, refused = build_manifest(cohort, input_path=input_path, cache=work / "dicom")
    with writing_to(work):
        write_manifest(manifest, work / "manifest.csv")
    affine = grid["affine"]
    zooms = abs(affine[0][0])
    preprocess = params.preprocess.model_copy(
        update={"grid": GridParams(shape=tuple(grid["shape"]), zooms=zooms), **(intensity or {})}
    )
    quarantine = work / "quarantine.csv"
    log.info(
        "%s: preprocessing onto %s voxels of %g mm; volumes and QC stay there for the next call",
        work,
        "×".join(map(str, grid["shape"])),
        zooms,
    )
    with writing_to(work):
        summary = preprocess_cohort(
            manifest,
            preprocess,
            manifest_dir=work,
            out=work / "volumes.zarr",
            qc_csv=work / "qc.csv",
            quarantine_csv=quarantine,
            prior_quarantine=refused,
            workers=workers,
            scheduler=scheduler,
        )
    return MadeVolumes(work / "volumes.zarr", quarantine, summary.quarantined)


def _work_of(latents: Path) -> Path:
    return latents.with_name(latents.name.removesuffix(".zarr") + ".input")


def find_volumes(latents: Path) -> Path | None:
    """Return the volumes that a latent store was made from, where they lie as commands leave them.

    In the folder that `encode` makes of images, or beside the store, as in a study.
    """
    latents = real_path(latents)
    places = (_work_of(latents) / "volumes.zarr", latents.with_name("volumes.zarr"))
    return next((place for place in places if place.is_dir() and place != latents), None)
