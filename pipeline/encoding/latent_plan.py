"""Plan of a latent store: volumes, autoencoder, and settings of each scan."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline import __version__
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.stores.build_units import EncodeSettings
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays
from pipeline.stores.provenance import latent_fingerprint
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes


class ReusableRows(BaseModel):
    """Rows of earlier latent stores that need not be encoded again."""

    model_config = ConfigDict(frozen=True)

    stores: tuple[Path, ...] = ()
    rows: dict[str, tuple[int, int]] = {}
    """Scan fingerprint → (index in `stores`, row)."""


class LatentPlan(BaseModel):
    """Everything that decides the content of a latent store; processes share it as JSON."""

    model_config = ConfigDict(frozen=True)

    volumes: Path
    autoencoder: Path
    autoencoder_digest: str
    latents: Path
    """The store to write."""
    attributes: StoreAttributes
    latent_shape: tuple[int, ...]
    chunk_scans: int
    reusable: ReusableRows
    settings: list[EncodeSettings]
    """Settings of each scan: to encode it with, or recorded in an earlier store that holds it."""

    @property
    def precision(self) -> str:
        """Return the arithmetic of the encoder."""
        return str(self.attributes.params["encode"]["precision"])

    def rows_to_encode(self, unit: range) -> list[int]:
        """Return the rows of a unit that no earlier store holds."""
        fingerprints = self.attributes.fingerprints
        return [row for row in unit if fingerprints[row] not in self.reusable.rows]

    def join_builder(self) -> StoreBuilder:
        """Open the store under construction from another thread or process."""
        return latent_builder(
            self.latents, self.attributes, self.latent_shape, self.chunk_scans, join=True
        )


def latent_builder(
    latents: Path,
    attributes: StoreAttributes,
    latent_shape: tuple[int, ...],
    chunk_scans: int,
    *,
    settings: EncodeSettings | None = None,
    join: bool = False,
) -> StoreBuilder:
    """Begin a latent store, or open the unfinished one; with `join`, only open it."""
    return StoreBuilder(
        latents,
        attributes,
        latent_arrays(latent_shape, rows_per_chunk=chunk_scans),
        unit_rows=chunk_scans,
        settings=settings._asdict() if settings is not None else None,
        set_aside=True,
        join=join,
    )


def latent_attributes(
    volumes: VolumeStore, autoencoder: FrozenAutoencoder, params: EncodeParams, precision: str
) -> StoreAttributes:
    """Return the attributes of the latent store of these volumes."""
    encoded_by = {"autoencoder": autoencoder.digest, "precision": precision}
    return StoreAttributes(
        kind="latents",
        made_by=f"ldae-pipeline {__version__}",
        params={
            "encode": {"precision": precision, "chunk_scans": params.chunk_scans},
            **volumes.attributes.contrast_record(),
        },
        digests=dict(volumes.attributes.digests) | {"autoencoder": autoencoder.digest},
        grid=volumes.attributes.grid,
        scan_ids=volumes.attributes.scan_ids,
        fingerprints=[
            latent_fingerprint(volume, **encoded_by) for volume in volumes.attributes.fingerprints
        ],
    )


def latent_shape(volumes: VolumeStore, autoencoder: FrozenAutoencoder) -> tuple[int, ...]:
    """Return (channel, x, y, z) of these volumes' latents.

    Raises
    ------
    ContractError
        If the volumes are on another grid than the autoencoder was trained on, or not uint8.
    """
    grid, trained = volumes.attributes.grid, autoencoder.grid
    volume = volumes.array("volume")
    if volume.dtype != np.uint8:
        raise ContractError(
            f"{volumes.path}: volumes are {volume.dtype}, expected uint8; run `pipeline preprocess`"
        )
    if grid != trained:
        raise ContractError(
            f"{volumes.path}: grid {grid}, the autoencoder was trained on"
            f" {trained}; preprocess to that grid or train an autoencoder on this one"
        )
    try:
        return autoencoder.latent_shape(tuple(volume.shape[1:]))
    except ValueError as error:
        raise ContractError(f"{volumes.path}: {error}") from error
