"""Encode volumes.zarr to latents.zarr: the frozen autoencoder over every scan, once."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.encoding.encode_target import EncodeTarget
from pipeline.encoding.latent_plan import (
    LatentPlan,
    latent_attributes,
    latent_builder,
    latent_shape,
)
from pipeline.encoding.previous_latents import open_previous
from pipeline.models.contrast import ENCODE_ANY, check_contrast
from pipeline.models.frozen import FrozenAutoencoder, intensity_rule
from pipeline.runtime.files import lock_store, real_path
from pipeline.stores.build_units import EncodeSettings
from pipeline.stores.builder import check_target
from pipeline.stores.location import absolute
from pipeline.stores.verify import missing_chunks
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams, PreprocessParams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """Numbers of scans and time of one call."""

    scans: int
    encoded: int
    reused: int
    seconds: float


def encode_volumes(
    volumes: VolumeStore,
    autoencoder: FrozenAutoencoder,
    latents: Path,
    params: EncodeParams,
    *,
    device: torch.device | Sequence[torch.device],
    replace: bool = False,
    scheduler: str | None = None,
    device_name: str = "auto",
) -> EncodeSummary:
    """Encode every scan of a volume store; scans encoded before are copied.

    With several devices, each has its own process and chunks; the bytes are those of one device.
    With a dask `scheduler`, its workers encode, each on the device that `device_name` names there.
    With `replace`, a store of another autoencoder, precision or preprocessing is replaced, scans
    that are no longer in the volumes are dropped, and a complete store is read for damaged scans,
    which are encoded again.

    Raises
    ------
    ContractError
        If `latents` would lose or change content and `replace` is off, if it is something else, or
        if the volumes do not fit the autoencoder or are damaged.
    """
    started = time.monotonic()
    shape = latent_shape(volumes, autoencoder)
    if not params.any_contrast:
        check_contrast(
            autoencoder.config,
            volumes.attributes.contrast,
            source=volumes.path,
            model=f"the autoencoder {autoencoder.path}",
            allowed_by=[ENCODE_ANY],
        )
    gap = next(missing_chunks(volumes), None)
    if gap is not None:
        raise ContractError(f"{volumes.path / gap}: missing; run `pipeline preprocess` again")
    latents = real_path(latents).absolute()
    devices = [device] if isinstance(device, torch.device) else list(device)
    target = EncodeTarget(devices, autoencoder, scheduler, device_name)
    total = len(volumes)
    with lock_store(latents), target:
        previous = open_previous(
            latents,
            autoencoder_digest=autoencoder.digest,
            precision=params.precision,
            replace=replace,
        )
        settings: EncodeSettings | None = None
        precision = previous.precision_for(params.precision, autoencoder.digest)
        if precision is None:
            precision, settings = target.choose_settings(volumes, params)
        attributes = latent_attributes(volumes, autoencoder, params, precision)
        if previous.is_current(attributes, thorough=replace):
            return EncodeSummary(total, 0, total, time.monotonic() - started)
        if not replace:
            previous.refuse_loss(attributes)
        if settings is None:
            fixed = params.model_copy(update={"precision": precision})
            _, settings = target.choose_settings(volumes, fixed)
        builder = latent_builder(latents, attributes, shape, params.chunk_scans, settings=settings)
        planned = EncodeSettings(**settings._asdict() | builder.settings)
        reusable, recorded = previous.reusable_rows(attributes)
        plan = LatentPlan(
            volumes=absolute(volumes.path),
            autoencoder=autoencoder.path.absolute(),
            autoencoder_digest=autoencoder.digest,
            latents=latents,
            attributes=attributes,
            latent_shape=shape,
            chunk_scans=params.chunk_scans,
            reusable=reusable,
            settings=[recorded.get(name, planned) for name in attributes.fingerprints],
        )
        encoded = target.write_units(plan, builder.pending())
        builder.finish()
    return EncodeSummary(total, encoded, total - encoded, time.monotonic() - started)


def check_out(
    latents: Path, autoencoder: FrozenAutoencoder, params: EncodeParams, *, replace: bool
) -> None:
    """Refuse an output that `encode_volumes` would refuse, before scans are preprocessed.

    Raises
    ------
    ContractError
        If the path is something else, is being written, or holds a store that was made otherwise
        and `replace` is off.
    """
    latents = real_path(latents)
    check_target(latents, "latents")
    with lock_store(latents):
        open_previous(
            latents,
            autoencoder_digest=autoencoder.digest,
            precision=params.precision,
            replace=replace,
        )


def check_intensity(volumes: VolumeStore, autoencoder: FrozenAutoencoder) -> None:
    """Warn if the intensity scale of volumes is not the one that the autoencoder expects."""
    rule = intensity_rule(autoencoder.config)
    recorded = volumes.attributes.params.get("preprocess", {})
    used = PreprocessParams.model_validate(recorded)
    wrong = {name: getattr(used, name) for name in rule if getattr(used, name) != rule[name]}
    if recorded and wrong:
        log.warning(
            "%s: intensities scaled with preprocess.%s, the autoencoder was trained with %s; expect"
            " a worse reconstruction, or preprocess again",
            volumes.path,
            ", ".join(f"{name} {value}" for name, value in wrong.items()),
            ", ".join(f"{name} {value}" for name, value in rule.items()),
        )
