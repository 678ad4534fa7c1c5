"""Several stores of one kind as one: rows are copied, never made again."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.runtime.files import lock_store
from pipeline.stores.builder import ArraySpec, StoreBuilder, check_target
from pipeline.stores.open_store import OpenStore, is_current
from schemas.errors import ContractError
from schemas.stores import StoreAttributes


def merge_stores(paths: Sequence[Path], out: Path) -> int:
    """Write the scans of all stores into `out`, in order of their ids; return how many there are.

    A store that holds them already is left alone.

    Raises
    ------
    ContractError
        If the stores were not made alike, or two hold one scan.
    """
    stores = [OpenStore(path) for path in paths]
    first = stores[0].attributes
    for store in stores[1:]:
        same = store.attributes
        if _made_by(same) != _made_by(first):
            raise ContractError(
                f"{store.path}: not made as {stores[0].path}; run the participant level again for"
                " both with the same parameters and models"
            )
    places = sorted(
        (scan_id, number, row)
        for number, store in enumerate(stores)
        for row, scan_id in enumerate(store.attributes.scan_ids)
    )
    ids = [scan_id for scan_id, _, _ in places]
    if double := next((a for a, b in pairwise(ids) if a == b), None):
        raise ContractError(f"{out}: {double} is in two of the stores; give each scan once")
    attributes = first.model_copy(
        update={
            "complete": False,
            "scan_ids": ids,
            "fingerprints": [stores[n].attributes.fingerprints[row] for _, n, row in places],
        }
    )
    with lock_store(out):
        check_target(out, first.kind)
        if is_current(out, attributes):
            return len(ids)
        specs = [spec_of(name, array) for name, array in sorted(stores[0].group.arrays())]
        builder = StoreBuilder(out, attributes, specs, unit_rows=stores[0].unit_rows)
        for unit in builder.pending():
            chosen = [(stores[n], row) for _, n, row in places[unit.start : unit.stop]]
            content = {s.name: np.stack([*_rows(s.name, chosen)]) for s in specs}
            settings = [
                store.encode_settings[row] for store, row in chosen if store.encode_settings
            ]
            builder.write(unit, content, encode_settings=settings or None)
        builder.finish()
    return len(ids)


def _made_by(attributes: StoreAttributes) -> tuple[object, ...]:
    """Return what must be equal: kind, digests of models and preprocessing, grid, arithmetic."""
    return attributes.kind, attributes.digests, attributes.grid, attributes.params.get("encode")


def _rows(name: str, chosen: Sequence[tuple[OpenStore, int]]) -> Iterator[np.ndarray]:
    for store, row in chosen:
        yield store.read(name, row)


def spec_of(name: str, array: "zarr.Array[Any]") -> ArraySpec:
    """Return the layout of an array, to be made anew for other scans."""
    names = [str(n) for n in array.metadata.dimension_names or ()]  # type: ignore[union-attr]
    return ArraySpec(
        name=name,
        row_shape=tuple(array.shape[1:]),
        dtype=str(array.dtype),
        dimension_names=tuple(names[1:]),
        rows_per_chunk=array.chunks[0],
        rows_per_shard=None if array.shards is None else array.shards[0],
        fill_value=float(array.fill_value),
        compressors=array.compressors,
    )
