"""Repair a latent store: keep undamaged rows, encode the damaged scans again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.encoding.encode_target import EncodeTarget
from pipeline.encoding.latent_plan import (
    LatentPlan,
    ReusableRows,
    latent_attributes,
    latent_builder,
)
from pipeline.encoding.previous_latents import describe_loss
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.runtime.files import lock_store, write_atomic, writing_to
from pipeline.stores.build_units import EncodeSettings
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import LatentStore, latent_arrays
from pipeline.stores.location import absolute
from pipeline.stores.open_store import RecordError, damaged_arrays, open_files, read_record
from pipeline.stores.record_copy import copy_differs, restore_record, write_copy
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams

DEFAULT_SETTINGS = EncodeSettings(batch_size=4, threads=1)
"""Settings of scans whose store does not record them."""


def repair_latents(
    path: Path,
    volumes: VolumeStore,
    autoencoder: FrozenAutoencoder,
    params: EncodeParams,
    *,
    devices: Sequence[torch.device],
) -> int:
    """Encode the damaged scans of a store again and return their number.

    The repaired store has the bytes of the undamaged one. If the store's record and its copy are
    both damaged, nothing in the store can be trusted: every scan is encoded again, with `params`.

    Raises
    ------
    ContractError
        If this is no latent store, if it was made from other volumes or another autoencoder, or if
        the scans come out otherwise than recorded; the store then stays as it is.
    """
    with lock_store(path):
        try:
            read_record(path)
            sound = True
        except RecordError as error:
            sound = restore_record(path)
            if not sound:
                _refuse_other_volumes(path, error.scan_ids, volumes)
        if sound:
            _refuse_other_autoencoder(path, autoencoder)
            if copy_differs(path):
                with writing_to(path):
                    write_copy(path)
            _restore_array_metadata(path, autoencoder)
            return _encode_damaged(LatentStore(path), volumes, autoencoder, devices)
    return encode_volumes(volumes, autoencoder, path, params, device=devices, replace=True).encoded


def _encode_damaged(
    store: LatentStore,
    volumes: VolumeStore,
    autoencoder: FrozenAutoencoder,
    devices: Sequence[torch.device],
) -> int:
    recorded = EncodeParams(**store.attributes.params["encode"])
    planned = latent_attributes(volumes, autoencoder, recorded, recorded.precision)
    if planned.fingerprints != store.attributes.fingerprints:
        more = " --replace" if describe_loss(store.attributes, planned) else ""
        raise ContractError(
            f"{store.path}: not made from the --volumes {volumes.path}; repair with those that made"
            f" it, or let `pipeline encode{more}` follow these"
        )
    damaged = verify_store(store.path)
    if not damaged:
        return 0
    attributes = store.attributes.model_copy(update={"complete": False})
    rows = {
        fingerprint: (0, row)
        for fingerprint, row in store.fingerprint_rows().items()
        if store.attributes.scan_ids[row] not in damaged
    }
    plan = LatentPlan(
        volumes=absolute(volumes.path),
        autoencoder=autoencoder.path.absolute(),
        autoencoder_digest=autoencoder.digest,
        latents=store.path,
        attributes=attributes,
        latent_shape=store.latent_shape,
        chunk_scans=store.unit_rows,
        reusable=ReusableRows(stores=(store.path,), rows=rows),
        settings=store.encode_settings or [DEFAULT_SETTINGS] * len(store),
    )
    builder = latent_builder(store.path, attributes, store.latent_shape, store.unit_rows)
    EncodeTarget(devices, autoencoder).write_units(plan, builder.pending())
    changed = [
        i
        for i, (old, new) in enumerate(zip(store.unit_digests, builder.unit_digests(), strict=True))
        if old != new
    ]
    if changed:
        builder.discard()
        first = store.attributes.scan_ids[changed[0] * store.unit_rows]
        raise ContractError(
            f"{store.path}: {first} and others come out otherwise than recorded (another processor,"
            " device or library version?); repair where it was made, or let `pipeline encode"
            " --replace` encode the damaged scans as they come out here"
        )
    builder.finish()
    return len(damaged)


def _refuse_other_volumes(path: Path, scan_ids: Sequence[str], volumes: VolumeStore) -> None:
    """Refuse volumes that hold less than half of the scans named in a damaged record."""
    known = sum(scan_id in volumes.row_of for scan_id in scan_ids)
    if known < len(scan_ids) / 2:
        raise ContractError(
            f"{path}: not made from the --volumes {volumes.path}, which hold {known} of its"
            f" {len(scan_ids)} scans; repair with those that made it"
        )


def _refuse_other_autoencoder(path: Path, autoencoder: FrozenAutoencoder) -> None:
    _, attributes, _ = read_record(path)
    if attributes.kind != "latents":
        raise ContractError(f"{path}: a {attributes.kind} store, expected latents")
    if attributes.digests["autoencoder"] != autoencoder.digest:
        raise ContractError(
            f"{path}: not made with the --ae {autoencoder.path}; repair with the one that made it,"
            " or make it anew with this one by `pipeline encode --replace`"
        )


def _restore_array_metadata(path: Path, autoencoder: FrozenAutoencoder) -> None:
    """Write the zarr.json of arrays again if its digest is not the recorded one."""
    group, attributes, units = read_record(path)
    damaged = damaged_arrays(open_files(group), units)
    if not damaged:
        return
    shape = autoencoder.latent_shape(attributes.grid.shape)
    with TemporaryDirectory() as folder:
        arrays = latent_arrays(shape, rows_per_chunk=units.rows)
        rebuilt = StoreBuilder(Path(folder) / "s.zarr", attributes, arrays, unit_rows=units.rows)
        for name in damaged:
            file, metadata = path / name / "zarr.json", rebuilt.metadata(name)
            if hashlib.sha256(metadata).hexdigest() != units.metadata_sha256[name]:
                raise ContractError(
                    f"{file}: this version of zarr would write another; repair with the version"
                    " that made it, or make the store anew with `pipeline encode --replace`"
                )
            with writing_to(path):
                write_atomic(file, metadata)
