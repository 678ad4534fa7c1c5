"""volumes.zarr → latents.zarr: the frozen autoencoder over every scan, once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import __version__
from pipeline.compute import digest_of
from pipeline.frozen import FrozenAutoencoder
from pipeline.precompute.fill import Previous, Work, fill
from pipeline.stores.builder import check_target, lock_store
from pipeline.stores.latents import LatentStore
from pipeline.stores.reading import is_current
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """What one call did."""

    scans: int
    encoded: int
    reused: int
    seconds: float


def encode_volumes(
    volumes: VolumeStore,
    autoencoder: FrozenAutoencoder,
    out: Path,
    params: EncodeParams,
    *,
    device: torch.device | Sequence[torch.device],
    replace: bool = False,
) -> EncodeSummary:
    """Encode every scan of a volume store; scans encoded before are copied, not redone.

    With several devices, each has its own process and chunks; the bytes are those of one device.
    `replace` allows a store that was made with another autoencoder or precision to be made anew.

    Raises
    ------
    ContractError
        If `out` was made with another autoencoder or precision and `replace` is off, if it is
        something else, or if the volumes do not fit the autoencoder.
    """
    started = time.monotonic()
    attributes = plan_latents(volumes, autoencoder, params)
    shape = latent_shape(volumes, autoencoder)
    with lock_store(out):
        if is_current(out, attributes):
            return EncodeSummary(len(volumes), 0, len(volumes), time.monotonic() - started)
        check_target(out, "latents")
        previous = _previous_rows(out, attributes, replace=replace)
        work = Work(
            volumes=volumes.path,
            autoencoder=autoencoder.path,
            autoencoder_digest=autoencoder.digest,
            out=out,
            attributes=attributes,
            latent_shape=shape,
            chunk_scans=params.chunk_scans,
            precision=params.precision,
            previous=previous.store.path if previous.store else None,
            previous_rows=previous.rows,
        )
        builder = work.builder()
        units = dict.fromkeys(builder.pending(), params.batch_size)
        devices = [device] if isinstance(device, torch.device) else list(device)
        encoded = fill(work, units, autoencoder, devices)
        builder.finish()
    total = len(volumes)
    return EncodeSummary(total, encoded, total - encoded, time.monotonic() - started)


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
    if any(grid[key] != trained[key] for key in ("shape", "affine")):
        raise ContractError(
            f"{volumes.path}: grid {_grid_words(grid)}, the autoencoder was trained on"
            f" {_grid_words(trained)}; preprocess to that grid or train an autoencoder on this one"
        )
    try:
        return autoencoder.net.latent_shape(tuple(volume.shape[1:]))
    except ValueError as error:
        raise ContractError(f"{volumes.path}: {error}") from error


def _grid_words(grid: dict[str, Any]) -> str:
    zooms = [sum(row[axis] ** 2 for row in grid["affine"][:3]) ** 0.5 for axis in range(3)]
    shape = "×".join(str(n) for n in grid["shape"])
    return f"{shape} of {'×'.join(f'{zoom:g}' for zoom in zooms)} mm"


def plan_latents(
    volumes: VolumeStore, autoencoder: FrozenAutoencoder, params: EncodeParams
) -> StoreAttributes:
    """Return what the latent store of these volumes says about itself."""
    made = {"autoencoder": autoencoder.digest, "precision": params.precision}
    return StoreAttributes(
        kind="latents",
        made_by=f"ldae-pipeline {__version__}",
        params={"encode": {"precision": params.precision, "chunk_scans": params.chunk_scans}},
        digests=dict(volumes.attributes.digests) | {"autoencoder": autoencoder.digest},
        grid=volumes.attributes.grid,
        scan_ids=volumes.attributes.scan_ids,
        fingerprints=[
            digest_of(made | {"volume": volume}) for volume in volumes.attributes.fingerprints
        ],
    )


def _previous_rows(out: Path, attributes: StoreAttributes, *, replace: bool) -> Previous:
    if not out.exists():
        return Previous(None, {})
    try:
        store = LatentStore(out)
    except ContractError:
        if replace:
            return Previous(None, {})
        raise
    old, new = store.attributes, attributes
    same = old.params["encode"]["precision"] == new.params["encode"]["precision"]
    if old.digests.get("autoencoder") != new.digests["autoencoder"] or not same:
        if replace:
            return Previous(None, {})
        raise ContractError(
            f"{out}: made with another autoencoder or precision; choose a new --out, or add"
            " --replace to make it anew"
        )
    return Previous(store, store.fingerprint_rows())
