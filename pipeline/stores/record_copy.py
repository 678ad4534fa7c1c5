"""A second copy of a store's record, from which a damaged one is written again.

It is a file in the folder of the store's first array: there no reader of Zarr lists files.
"""

import json
from pathlib import Path

from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_atomic, writing_to

NAME = "record.json"


def write_copy(store: Path) -> None:
    """Copy the record, the group's zarr.json, into the folder of the first array."""
    array = min(file.parent for file in store.glob("*/zarr.json"))
    write_atomic(array / NAME, (store / "zarr.json").read_bytes())


def copy_differs(store: Path) -> bool:
    """Return whether there is a copy, and it is not the record byte for byte."""
    copies = sorted(store.glob(f"*/{NAME}"))
    return any(copy.read_bytes() != (store / "zarr.json").read_bytes() for copy in copies)


def restore_record(store: Path) -> bool:
    """Write the record again from its copy; return whether there is a sound one.

    Stores that were made before there were copies have none.
    """
    for copy in sorted(store.glob(f"*/{NAME}")):
        content = copy.read_bytes()
        if _is_sealed(content):
            with writing_to(store):
                write_atomic(store / "zarr.json", content)
            return True
    return False


def _is_sealed(content: bytes) -> bool:
    """Return whether a record agrees with its own digest."""
    try:
        attributes = dict(json.loads(content)["attributes"])
        return bool(attributes.pop("record_sha256") == digest_of(attributes))
    except (ValueError, KeyError, TypeError):
        return False
