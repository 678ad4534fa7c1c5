"""Open a store of any kind, and check it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError

from pipeline.compute import digest_of
from pipeline.stores.builder import content_digest
from schemas.errors import ContractError
from schemas.stores import SCHEMA_VERSION, StoreAttributes, StoreKind


class OpenStore:
    """A complete store, open for reading.

    Raises
    ------
    ContractError
        If the path is no store, of another kind or schema version, or not complete.
    """

    def __init__(self, path: Path, *, kind: StoreKind | None = None) -> None:
        if not (path / "zarr.json").is_file():
            hint = "still being built; run the same command again" if _building(path) else "missing"
            raise ContractError(f"{path}: expected a Zarr store, found none ({hint})")
        try:
            self.group = zarr.open_group(path, mode="r")
            raw: dict[str, Any] = dict(self.group.attrs)
            units = raw.pop("units", None)
            version = raw.get("schema_version")
            if version != SCHEMA_VERSION:
                raise ContractError(
                    f"{path}: schema version {version}, expected {SCHEMA_VERSION}; make it again"
                )
            self.attributes = StoreAttributes.model_validate(raw)
        except (ValidationError, ValueError, KeyError) as error:
            raise ContractError(f"{path}: no store of this project ({error!s:.120})") from error
        if kind is not None and self.attributes.kind != kind:
            raise ContractError(f"{path}: a {self.attributes.kind} store, expected {kind}")
        if not self.attributes.complete or units is None:
            raise ContractError(f"{path}: not complete; run the command that makes it again")
        self.path = path
        self.unit_rows: int = units["rows"]
        self.unit_digests: list[str] = units["sha256"]
        self.digest = digest_of([self.attributes.fingerprints, self.unit_digests])
        self.row_of = {scan_id: i for i, scan_id in enumerate(self.attributes.scan_ids)}

    def __len__(self) -> int:
        return len(self.attributes.scan_ids)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one array, unread."""
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array

    def read(self, name: str, rows: slice | int = slice(None)) -> np.ndarray:
        """Read rows of one array into memory."""
        try:
            return np.asarray(self.array(name)[rows])
        except (ValueError, RuntimeError, OSError) as error:
            raise ContractError(
                f"{self.path}: {name} is damaged ({error!s:.100}); run `pipeline verify`"
            ) from error

    def fingerprint_rows(self) -> dict[str, int]:
        """Return the row of each scan fingerprint."""
        return {fingerprint: i for i, fingerprint in enumerate(self.attributes.fingerprints)}


def _building(path: Path) -> bool:
    return path.with_name(path.name + ".building").exists()


def is_current(path: Path, attributes: StoreAttributes) -> bool:
    """Tell whether a complete store with these very attributes is already at `path`.

    Removes what an interrupted swap may have left beside it.
    """
    try:
        current = OpenStore(path).attributes.model_copy(update={"complete": False}) == attributes
    except ContractError:
        return False
    if current:
        shutil.rmtree(path.with_name(path.name + ".building"), ignore_errors=True)
    return current


def verify_store(path: Path) -> dict[str, str]:
    """Read everything and compare it with the recorded digests.

    Returns the damaged scans: scan id → what is wrong. Empty means sound.
    """
    store = OpenStore(path)
    names = sorted(name for name, _ in store.group.arrays())
    hurt: dict[str, str] = {}
    for unit, expected in enumerate(store.unit_digests):
        rows = slice(unit * store.unit_rows, min((unit + 1) * store.unit_rows, len(store)))
        try:
            found = content_digest({name: store.read(name, rows) for name in names})
            reason = "" if found == expected else "content differs from its recorded digest"
        except ContractError as error:
            reason = str(error)
        if reason:
            hurt |= dict.fromkeys(store.attributes.scan_ids[rows], reason)
    return hurt
