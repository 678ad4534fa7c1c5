"""Compare a store with its recorded digests and name the damaged scans."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.stores.build_units import chunk_file, content_digest, rows_per_file
from pipeline.stores.open_store import OpenStore, damaged_arrays, open_files, read_record
from pipeline.stores.remote import RemoteFiles
from schemas.errors import ContractError

FILES_AT_ONCE = 8
"""Files of a remote store that are read at a time, some MB each."""


def verify_store(path: Path) -> dict[str, str]:
    """Read every array, compare it with its recorded digests, and return the damaged scans.

    The result maps scan id → fault; it is empty for an undamaged store.

    Raises
    ------
    RecordError
        If the store's record is damaged: then no scan can be trusted.
    ContractError
        If the path is no store.
    """
    group, attributes, units = read_record(path)
    arrays = damaged_arrays(open_files(group), units)
    if arrays:
        reason = f"{arrays[0]}/zarr.json, which describes its array, is damaged or missing"
        return dict.fromkeys(attributes.scan_ids, reason)
    store = OpenStore(path)
    damaged: dict[str, str] = {}
    per_file = _units_per_file(store)
    files = [
        range(unit, min(unit + per_file, len(store.unit_digests)))
        for unit in range(0, len(store.unit_digests), per_file)
    ]
    # From object storage each answer is waited for, so several files are read at a time.
    at_once = FILES_AT_ONCE if isinstance(store.files, RemoteFiles) else 1
    with ThreadPoolExecutor(at_once) as pool:
        for found in pool.map(lambda units: _damaged_in_file(store, units), files):
            damaged |= found
    return damaged


def _units_per_file(store: OpenStore) -> int:
    """Return how many units lie in one file of every array: a shard is fetched once."""
    rows = min((rows_per_file(array) for _, array in store.group.arrays()), default=0)
    return max(1, rows // store.unit_rows) if rows % store.unit_rows == 0 else 1


def _damaged_in_file(store: OpenStore, units: range) -> dict[str, str]:
    """Return the damaged scans of units that lie in the same files."""
    if len(units) > 1 and _are_sound(store, units):
        return {}
    damaged: dict[str, str] = {}
    for unit in units:
        damaged |= _damaged_in(store, unit_rows(store, unit), store.unit_digests[unit])
    return damaged


def _are_sound(store: OpenStore, units: range) -> bool:
    first, last = unit_rows(store, units[0]).start, unit_rows(store, units[-1]).stop
    try:
        content = {name: store.read(name, slice(first, last)) for name in store.group.array_keys()}
    except ContractError:
        return False
    rows = [unit_rows(store, unit) for unit in units]
    return all(
        content_digest({n: v[r.start - first : r.stop - first] for n, v in content.items()})
        == store.unit_digests[unit]
        for unit, r in zip(units, rows, strict=True)
    )


def refuse_damaged(store: OpenStore) -> None:
    """Refuse a damaged store before hours are spent on it.

    Raises
    ------
    ContractError
        Naming the first damaged scan and the remedy.
    """
    gap = next(missing_chunks(store), None)
    damaged = {"a chunk file": f"{gap} is missing"} if gap else verify_store(store.path)
    if damaged:
        scan_id, reason = next(iter(damaged.items()))
        count = "" if gap else f"{len(damaged)} scans damaged, first "
        raise ContractError(
            f"{store.path}: {count}{scan_id} ({reason}); see `pipeline verify {store.path}"
            " --repair`"
        )


def missing_chunks(store: OpenStore) -> Iterator[str]:
    """Yield the chunk files that are missing, without reading any."""
    yield from store.files.missing(
        [
            chunk_file(name, array, start)
            for name, array in sorted(store.group.arrays())
            for start in range(0, len(store), rows_per_file(array))
        ]
    )


def unit_rows(store: OpenStore, unit: int) -> range:
    """Return the range of rows of a unit."""
    return range(unit * store.unit_rows, min((unit + 1) * store.unit_rows, len(store)))


def _damaged_in(store: OpenStore, rows: range, expected: str) -> dict[str, str]:
    arrays = dict(sorted(store.group.arrays()))
    gaps = store.files.missing([chunk_file(n, a, rows.start) for n, a in arrays.items()])
    if gaps:
        ids = store.attributes.scan_ids[rows.start : rows.stop]
        return dict.fromkeys(ids, f"chunk file {gaps[0]} is missing")
    try:
        content = {name: store.read(name, slice(rows.start, rows.stop)) for name in arrays}
    except ContractError as error:
        return _unreadable_rows(store, rows, str(error))
    if content_digest(content) == expected:
        return {}
    reason = "content differs from its recorded digest"
    if any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in content.values()):
        reason = "holds NaN or infinity, " + reason
    return dict.fromkeys(store.attributes.scan_ids[rows.start : rows.stop], reason)


def _unreadable_rows(store: OpenStore, rows: range, reason: str) -> dict[str, str]:
    """Return the unreadable scans of a shard with a checksum for each, else all of the unit."""
    ids = store.attributes.scan_ids
    damaged: dict[str, str] = {}
    for name, array in store.group.arrays():
        for row in rows if array.shards is not None else ():
            try:
                store.read(name, row)
            except ContractError as error:
                damaged[ids[row]] = str(error)
    return damaged or dict.fromkeys(ids[rows.start : rows.stop], reason)
