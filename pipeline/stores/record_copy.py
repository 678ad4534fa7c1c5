"""A second copy of a store's record (the group's zarr.json), to restore a damaged one.

The copy lies in the folder of the store's first array, where no reader of Zarr lists files.
"""

import json
from pathlib import Path

from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_atomic, writing_to

NAME = "record.json"


def write_copy(store: Path) -> None:
    """Copy the record into the folder of the first array."""
    array = min(file.parent for file in store.glob("*/zarr.json"))
    write_atomic(array / NAME, (store / "zarr.json").read_bytes())


def copy_differs(store: Path) -> bool:
    """Return whether there is a copy that differs from the record in any byte."""
    copies = sorted(store.glob(f"*/{NAME}"))
    return any(copy.read_bytes() != (store / "zarr.json").read_bytes() for copy in copies)


def restore_record(store: Path) -> bool:
    """Write the record again from an undamaged copy; return whether there was one.

    Stores of earlier versions have no copy.
    """
    for copy in sorted(store.glob(f"*/{NAME}")):
        content = copy.read_bytes()
        if _agrees_with_digest(content):
            with writing_to(store):
                write_atomic(store / "zarr.json", content)
            return True
    return False


def _agrees_with_digest(content: bytes) -> bool:
    """Return whether a record agrees with its own digest."""
    try:
        attributes = dict(json.loads(content)["attributes"])
        return bool(attributes.pop("record_sha256") == digest_of(attributes))
    except (ValueError, KeyError, TypeError):
        return False
