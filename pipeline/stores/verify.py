"""Check a store against its own record: what is hurt, and which scans that touches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.stores.build_units import chunk_file, content_digest, rows_per_file
from pipeline.stores.open_store import OpenStore, hurt_metadata, read_record
from schemas.errors import ContractError


def verify_store(path: Path) -> dict[str, str]:
    """Read everything and compare it with the recorded digests.

    Returns the damaged scans: scan id → what is wrong. Empty means sound.

    Raises
    ------
    RecordError
        If its own record is damaged: then no scan can be trusted.
    ContractError
        If the path is no store.
    """
    _, attributes, units = read_record(path)
    without = hurt_metadata(path, units)
    if without:
        reason = f"{without[0]}/zarr.json, which describes its array, is damaged or missing"
        return dict.fromkeys(attributes.scan_ids, reason)
    store = OpenStore(path)
    hurt: dict[str, str] = {}
    for unit, expected in enumerate(store.unit_digests):
        hurt |= _hurt_in(store, unit_rows(store, unit), expected)
    return hurt


def refuse_hurt(store: OpenStore) -> None:
    """Refuse a damaged store before hours are spent on it.

    Raises
    ------
    ContractError
        Naming the first damaged scan and the remedy.
    """
    gaps = next(missing_chunks(store), None)
    hurt = {"a chunk file": f"{gaps} is missing"} if gaps else verify_store(store.path)
    if hurt:
        scan_id, reason = next(iter(hurt.items()))
        count = "" if gaps else f"{len(hurt)} scans damaged, first "
        raise ContractError(
            f"{store.path}: {count}{scan_id} ({reason}); see `pipeline verify {store.path}"
            " --repair`"
        )


def missing_chunks(store: OpenStore) -> Iterator[str]:
    """Yield the chunk files that should be there and are not, without reading any."""
    for name, array in sorted(store.group.arrays()):
        for start in range(0, len(store), rows_per_file(array)):
            file = chunk_file(name, array, start)
            if not (store.path / file).is_file():
                yield file


def unit_rows(store: OpenStore, unit: int) -> range:
    """Return the rows of a unit."""
    return range(unit * store.unit_rows, min((unit + 1) * store.unit_rows, len(store)))


def _hurt_in(store: OpenStore, rows: range, expected: str) -> dict[str, str]:
    arrays = dict(sorted(store.group.arrays()))
    try:
        content = {name: store.read(name, slice(rows.start, rows.stop)) for name in arrays}
    except ContractError as error:
        return _unreadable_rows(store, rows, str(error))
    if content_digest(content) == expected:
        return {}
    files = {chunk_file(n, a, rows.start): n for n, a in arrays.items()}
    gaps = [file for file in files if not (store.path / file).is_file()]
    reason = "content differs from its recorded digest"
    if gaps:
        reason = f"chunk file {gaps[0]} is missing"
    elif any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in content.values()):
        reason = "holds NaN or infinity, " + reason
    return dict.fromkeys(store.attributes.scan_ids[rows.start : rows.stop], reason)


def _unreadable_rows(store: OpenStore, rows: range, reason: str) -> dict[str, str]:
    """Name the very scans where a shard has a checksum for each, else all of the unit."""
    ids = store.attributes.scan_ids
    found: dict[str, str] = {}
    for name, array in store.group.arrays():
        for row in rows if array.shards is not None else ():
            try:
                store.read(name, row)
            except ContractError as error:
                found[ids[row]] = str(error)
    return found or dict.fromkeys(ids[rows.start : rows.stop], reason)
