"""Embed scans: write y_sem of every latent to semantics.zarr."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline import __version__
from pipeline.models.contrast import EMBED_ANY
from pipeline.models.frozen import FrozenLdae
from pipeline.models.latent_fit import check_latents_fit
from pipeline.nets.published import PublishedEncoder
from pipeline.runtime.files import lock_store
from pipeline.runtime.progress import progress
from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore, is_current
from pipeline.stores.provenance import check_same_scans, semantic_fingerprint
from pipeline.stores.verify import refuse_damaged
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EmbedParams
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


ROWS_PER_CHUNK = 1024


def embed_latents(
    latents: LatentStore,
    ldae: FrozenLdae,
    out: Path,
    params: EmbedParams,
    *,
    device: torch.device,
    volumes: VolumeStore | None = None,
) -> int:
    """Write y_sem (scan, dim), float32, of posterior means; return the number of scans.

    Raises
    ------
    ContractError
        If the model was trained on latents of another autoencoder, the store is damaged, or the
        model's encoder reads volumes and they are absent.
    """
    check_same_autoencoder(latents, ldae, any_contrast=params.any_contrast)
    source = latents.attributes
    attributes = StoreAttributes(
        kind="semantics",
        made_by=f"ldae-pipeline {__version__}",
        params=source.contrast_record(),
        digests=dict(source.digests) | {"ldae": ldae.digest},
        grid=source.grid,
        scan_ids=source.scan_ids,
        fingerprints=[semantic_fingerprint(f, ldae=ldae.digest) for f in source.fingerprints],
    )
    spec = ArraySpec(
        name="y_sem",
        row_shape=(ldae.net.encoder.dim,),
        dtype="float32",
        dimension_names=("feature",),
        rows_per_chunk=ROWS_PER_CHUNK,
        fill_value=float("nan"),
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
    )
    with lock_store(out):
        if is_current(out, attributes):
            return len(latents)
        warn_of_other_ldae(out, ldae.digest)
        refuse_damaged(latents)
        if volumes is not None:
            check_same_scans(latents, volumes)
            check_volumes(ldae, volumes)
        elif ldae.net.encoder.reads == "volume":
            raise ContractError(
                "this LDAE's semantic encoder reads volumes; give them with --volumes"
            )
        builder = StoreBuilder(out, attributes, [spec], unit_rows=ROWS_PER_CHUNK)
        pending = builder.pending()
        for unit in progress(pending, total=len(pending), label="embed"):
            ids = source.scan_ids[unit.start : unit.stop]
            mean = latents.load(ids, device=device).mean
            y_sem = y_sem_of(ldae, mean, batch_size=params.batch_size, volumes=volumes, ids=ids)
            builder.write(unit, {"y_sem": y_sem.cpu().numpy()})
        builder.finish()
    return len(latents)


def y_sem_of(
    ldae: FrozenLdae,
    mean: Float[Tensor, "N C X Y Z"],
    *,
    batch_size: int,
    volumes: VolumeStore | None = None,
    ids: Sequence[str] = (),
) -> Float[Tensor, "N D"]:
    """Return y_sem of posterior means, as they are stored, on the device of the model.

    `volumes` holds the scans `ids` where the semantic encoder reads volumes.
    """
    y_sem = []
    starts = range(0, len(mean), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    readers = _readers(volumes, [ids[rows] for rows in batches], mean.device)
    for rows, reader in zip(batches, readers, strict=True):
        z_0 = ldae.net.diffusion.standardise(mean[rows].float())
        with torch.inference_mode():
            y_sem.append(ldae.net.embed(z_0, reader))
    return torch.cat(y_sem)


def _readers(
    volumes: VolumeStore | None, batches: Sequence[Sequence[str]], device: torch.device
) -> Iterator[Callable[[], Tensor] | None]:
    """Yield a function that returns the volumes of each batch; the next batch is read ahead."""
    if volumes is None:
        yield from (None for _ in batches)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(volumes.load_unit_interval, batches[0])
        for number in range(len(batches)):
            current = following
            if number + 1 < len(batches):
                following = pool.submit(volumes.load_unit_interval, batches[number + 1])
            yield partial(_result, current, device)


def _result(volumes: Future[Tensor], device: torch.device) -> Tensor:
    return volumes.result().to(device)


def check_volumes(ldae: FrozenLdae, volumes: VolumeStore) -> None:
    """Refuse volumes that the semantic encoder cannot read.

    Raises
    ------
    ContractError
        Naming the store.
    """
    encoder = ldae.net.encoder
    if isinstance(encoder, PublishedEncoder):
        try:
            encoder.check_grid(volumes.attributes.grid.shape)
        except ValueError as error:
            raise ContractError(f"{volumes.path}: {error}; preprocess to its grid") from error


def check_same_autoencoder(
    latents: LatentStore, ldae: FrozenLdae, *, any_contrast: bool = False
) -> None:
    """Refuse latents of another autoencoder, contrast, or grid that the model does not work on."""
    check_latents_fit(
        ldae.config,
        latents,
        model="the LDAE",
        contrast_allowed_by=EMBED_ANY,
        any_contrast=any_contrast,
    )


def warn_of_other_ldae(out: Path, digest: str) -> None:
    """Warn if `out` holds y_sem of another LDAE, which will be replaced."""
    try:
        before = OpenStore(out, kind="semantics").attributes.digests.get("ldae")
    except ContractError:
        return
    if before is not None and before != digest:
        log.warning("%s: y_sem of another LDAE, made anew", out)
