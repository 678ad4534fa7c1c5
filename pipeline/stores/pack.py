"""A copy of a store for object storage, with fewer and larger chunks: each costs a request."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.merge import spec_of
from pipeline.stores.open_store import OpenStore
from pipeline.stores.verify import unit_rows

CHUNK_BYTES = 1_000_000
"""Size that a chunk is filled up to, before compression: a fraction of a second to fetch."""


def pack_store(store: OpenStore, out: Path) -> Path:
    """Write a copy in larger chunks, and return it; the store's own path if they are large.

    Content, digests of every unit and the digest of the store are those of the original. A shard
    instead would keep the small chunk, and cost as much time in Zarr as the requests that it saves.
    """
    arrays = dict(sorted(store.group.arrays()))
    if any(array.shards is not None for array in arrays.values()):
        return store.path  # volumes: large files already, and too much to copy
    before = [spec_of(name, array) for name, array in arrays.items()]
    specs = [_packed(spec, arrays[spec.name]) for spec in before]
    if specs == before:
        return store.path
    attributes = store.attributes.model_copy(update={"complete": False})
    builder = StoreBuilder(out, attributes, specs, unit_rows=store.unit_rows)
    for number in range(len(store.unit_digests)):
        rows = unit_rows(store, number)
        content = {name: store.read(name, slice(rows.start, rows.stop)) for name in arrays}
        settings = store.encode_settings
        builder.write(
            rows,
            content,
            encode_settings=None if settings is None else settings[rows.start : rows.stop],
        )
    builder.finish()
    return out


def _packed(spec: ArraySpec, array: "zarr.Array[Any]") -> ArraySpec:
    """Return the layout with a chunk of as many of the former ones as fit."""
    chunk_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize
    there = -(-array.shape[0] // spec.rows_per_chunk)
    several = min(CHUNK_BYTES // chunk_bytes, there)
    return replace(spec, rows_per_chunk=several * spec.rows_per_chunk) if several > 1 else spec
