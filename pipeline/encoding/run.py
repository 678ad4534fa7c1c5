"""volumes.zarr → latents.zarr: the frozen autoencoder over every scan, once."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline import __version__
from pipeline.encoding.across_devices import Site, fill
from pipeline.encoding.reusable_rows import find_previous, open_previous, refuse_change, refuse_loss
from pipeline.encoding.unit_writer import Work, begin
from pipeline.models.frozen import FrozenAutoencoder, intensity_rule
from pipeline.runtime.files import lock_store, real_path
from pipeline.stores.build_units import Made
from pipeline.stores.builder import check_target
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import is_current
from pipeline.stores.provenance import latent_fingerprint
from pipeline.stores.verify import missing_chunks, verify_store
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams, PreprocessParams
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


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
    scheduler: str | None = None,
    device_name: str = "auto",
) -> EncodeSummary:
    """Encode every scan of a volume store; scans encoded before are copied, not redone.

    With several devices, each has its own process and chunks; the bytes are those of one device.
    With a dask `scheduler`, its workers encode, each on what `device_name` is to it. `replace`
    allows a store to be made anew that was made with another autoencoder, precision or
    preprocessing, and scans to be dropped that are no longer in the volumes; a store that has all
    it should is then read, and its damaged scans encoded again.

    Raises
    ------
    ContractError
        If `out` would lose or change what it holds and `replace` is off, if it is something else,
        or if the volumes do not fit the autoencoder or are damaged.
    """
    started = time.monotonic()
    shape = latent_shape(volumes, autoencoder)
    gap = next(missing_chunks(volumes), None)
    if gap is not None:
        raise ContractError(f"{volumes.path / gap}: missing; run `pipeline preprocess` again")
    out = real_path(out).absolute()
    total = len(volumes)
    with (
        lock_store(out),
        Site(
            [device] if isinstance(device, torch.device) else list(device),
            autoencoder,
            volumes,
            scheduler=scheduler,
            device_name=device_name,
        ) as site,
    ):
        store = open_previous(out, replace=replace)
        if not replace:
            refuse_change(store, autoencoder.digest, params.precision)
        precision = site.precision(params.precision, store)
        attributes = plan_latents(volumes, autoencoder, params, precision)
        if store is not None and is_current(out, attributes) and _is_whole(store, thorough=replace):
            return EncodeSummary(total, 0, total, time.monotonic() - started)
        if not replace:
            refuse_loss(store, attributes)
        settings = {
            "batch_size": site.batch_size(params.batch_size),
            "threads": site.threads(),
        }
        builder = begin(out, attributes, shape, params.chunk_scans, settings=settings)
        now = Made(**settings | builder.settings)
        previous, made = find_previous(out, store, attributes)
        work = Work(
            volumes=volumes.path.absolute(),
            autoencoder=autoencoder.path.absolute(),
            autoencoder_digest=autoencoder.digest,
            out=out,
            attributes=attributes,
            latent_shape=shape,
            chunk_scans=params.chunk_scans,
            precision=precision,
            previous=previous,
            made=[made.get(fingerprint, now) for fingerprint in attributes.fingerprints],
        )
        encoded = fill(work, builder.pending(), autoencoder, site)
        builder.finish()
    return EncodeSummary(total, encoded, total - encoded, time.monotonic() - started)


def _is_whole(store: LatentStore, *, thorough: bool) -> bool:
    """Tell whether no chunk file is missing; if `thorough`, read whether all are sound."""
    return not any(missing_chunks(store)) and not (thorough and verify_store(store.path))


def check_out(
    out: Path, autoencoder: FrozenAutoencoder, params: EncodeParams, *, replace: bool
) -> None:
    """Refuse what `encode_volumes` would refuse, before scans are preprocessed for it.

    Raises
    ------
    ContractError
        If `out` is something else, is being written, or was made otherwise and `replace` is off.
    """
    out = real_path(out)
    check_target(out, "latents")
    with lock_store(out):
        store = open_previous(out, replace=replace)
    if not replace:
        refuse_change(store, autoencoder.digest, params.precision)


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
        return autoencoder.net.latent_shape(tuple(volume.shape[1:]))
    except ValueError as error:
        raise ContractError(f"{volumes.path}: {error}") from error


def check_intensity(volumes: VolumeStore, autoencoder: FrozenAutoencoder) -> None:
    """Warn where intensities were scaled otherwise than the autoencoder expects."""
    rule = intensity_rule(autoencoder.config)
    recorded = volumes.attributes.params.get("preprocess", {})
    made = PreprocessParams.model_validate(recorded)
    wrong = {name: getattr(made, name) for name in rule if getattr(made, name) != rule[name]}
    if recorded and wrong:
        log.warning(
            "%s: intensities scaled with preprocess.%s, the autoencoder was trained with %s; expect"
            " a worse reconstruction, or preprocess again",
            volumes.path,
            ", ".join(f"{name} {value}" for name, value in wrong.items()),
            ", ".join(f"{name} {value}" for name, value in rule.items()),
        )


def plan_latents(
    volumes: VolumeStore, autoencoder: FrozenAutoencoder, params: EncodeParams, precision: str
) -> StoreAttributes:
    """Return what the latent store of these volumes says about itself."""
    made = {"autoencoder": autoencoder.digest, "precision": precision}
    return StoreAttributes(
        kind="latents",
        made_by=f"ldae-pipeline {__version__}",
        params={"encode": {"precision": precision, "chunk_scans": params.chunk_scans}},
        digests=dict(volumes.attributes.digests) | {"autoencoder": autoencoder.digest},
        grid=volumes.attributes.grid,
        scan_ids=volumes.attributes.scan_ids,
        fingerprints=[
            latent_fingerprint(volume, **made) for volume in volumes.attributes.fingerprints
        ],
    )
