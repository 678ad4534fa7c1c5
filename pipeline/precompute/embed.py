"""latents.zarr → semantics.zarr: y_sem of every scan."""

from pathlib import Path

import torch
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline import __version__
from pipeline.compute import digest_of, progress
from pipeline.frozen import FrozenLdae
from pipeline.stores.builder import ArraySpec, StoreBuilder, lock_store
from pipeline.stores.latents import LatentStore
from pipeline.stores.reading import is_current
from pipeline.stores.verify import refuse_hurt
from schemas.errors import ContractError
from schemas.params import EmbedParams
from schemas.stores import StoreAttributes

ROWS_PER_CHUNK = 1024


def embed_latents(
    latents: LatentStore,
    ldae: FrozenLdae,
    out: Path,
    params: EmbedParams,
    *,
    device: torch.device,
) -> int:
    """Write y_sem (scan, dim) float32 of posterior means, and return the number of scans.

    Raises
    ------
    ContractError
        If the model was trained on latents of another autoencoder, or the store is damaged.
    """
    check_same_autoencoder(latents, ldae)
    source = latents.attributes
    attributes = StoreAttributes(
        kind="semantics",
        made_by=f"ldae-pipeline {__version__}",
        params={},
        digests=dict(source.digests) | {"ldae": ldae.digest},
        grid=source.grid,
        scan_ids=source.scan_ids,
        fingerprints=[digest_of([ldae.digest, f]) for f in source.fingerprints],
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
        refuse_hurt(latents)
        builder = StoreBuilder(out, attributes, [spec], unit_rows=ROWS_PER_CHUNK)
        pending = builder.pending()
        for unit in progress(pending, total=len(pending), label="embed"):
            ids = source.scan_ids[unit.start : unit.stop]
            starts = range(0, len(ids), params.batch_size)
            loaded = latents.load(ids, device=device)
            with torch.inference_mode():
                y_sem = [
                    ldae.net.embed(ldae.net.diffusion.standardise(mean.float()))
                    for mean in (loaded.mean[i : i + params.batch_size] for i in starts)
                ]
            builder.write(unit, {"y_sem": torch.cat(y_sem).cpu().numpy()})
        builder.finish()
    return len(latents)


def check_same_autoencoder(latents: LatentStore, ldae: FrozenLdae) -> None:
    """Refuse a model that was trained on latents of another autoencoder."""
    if latents.attributes.digests["autoencoder"] != ldae.config["autoencoder_digest"]:
        raise ContractError(
            f"{latents.path}: encoded by another autoencoder than the LDAE was trained on;"
            " encode with that one, or train on this store"
        )
