"""Open a store of any kind, and check it."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError

from pipeline.runtime.digests import digest_of
from pipeline.stores.build_units import row_settings
from pipeline.stores.location import SCHEMES, StoreFiles, open_location, shown
from pipeline.stores.remote import RemoteFiles
from schemas.errors import ContractError
from schemas.stores import SCHEMA_VERSION, StoreAttributes, StoreKind, UnitRecord

GROUP_DOCUMENT = {"zarr_format": 3, "node_type": "group"}
"""The group's zarr.json without its attributes."""
STORE_ATTRIBUTES = {"kind", "fingerprints", "scan_ids", "record_sha256"}
"""Attributes of every store of this project; a damaged one still has some of them."""

REMEDY = "restore it, or `pipeline verify --repair` if it is a latent store"


class RecordError(ContractError):
    """Damage in a store's record: the group's zarr.json, from which all else in it is checked."""

    scan_ids: tuple[str, ...] = ()
    """The scan ids that can still be read."""


def read_record(path: Path) -> tuple[zarr.Group, StoreAttributes, UnitRecord]:
    """Return a store's group, its attributes, and the record of its units.

    Raises
    ------
    RecordError
        If the record does not agree with its own digest, or is not a record.
    ContractError
        If the path is no store, of another schema version, or not complete.
    """
    files = open_location(path)
    raw = _raw_attributes(path, files)
    try:
        unit_record = raw.pop("units", None)
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ContractError(
                f"{path}: schema version {version}, expected {SCHEMA_VERSION}; make it again"
            )
        attributes = StoreAttributes.model_validate(raw)
        units = None if unit_record is None else UnitRecord.model_validate(unit_record)
        files.arrays = tuple(sorted(units.metadata_sha256)) if units is not None else ()
        group = zarr.open_group(files, mode="r", zarr_format=3)
    except (ValidationError, ValueError, KeyError, TypeError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"{path}: no store of this project ({reason:.120})") from error
    if not attributes.complete or units is None:
        raise ContractError(f"{path}: not complete; run the command that makes it again")
    return group, attributes, units


def _raw_attributes(path: Path, files: StoreFiles) -> dict[str, Any]:
    """Return the attributes in a store's zarr.json, checked against their own digest."""
    file = path / "zarr.json"
    try:
        (content,) = files.read(["zarr.json"])
    except FileNotFoundError:
        content = None
    except OSError as error:
        raise ContractError(f"{file}: {error.strerror}") from error
    if content is None:
        hint = _what_is_there(path, files)
        raise ContractError(f"{shown(path)}: expected a Zarr store, found none ({hint})")
    try:
        document = json.loads(content)
        raw: dict[str, Any] = dict(document.pop("attributes"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{file}: damaged, no store's record; {REMEDY}") from error
    if not STORE_ATTRIBUTES & raw.keys():
        raise ContractError(f"{path}: no store of this project")
    ids = raw.get("scan_ids")
    document.pop("consolidated_metadata", None)
    digest = raw.pop("record_sha256", None)
    if document != GROUP_DOCUMENT or digest not in (None, digest_of(raw)):
        damage = RecordError(f"{file}: damaged, differs from its own digest; {REMEDY}")
        damage.scan_ids = tuple(map(str, ids)) if isinstance(ids, list) else ()
        raise damage
    return raw


def damaged_arrays(files: StoreFiles, units: UnitRecord) -> list[str]:
    """Return the names of the arrays whose zarr.json is missing or differs from its digest."""
    recorded = units.metadata_sha256
    contents = files.read([f"{name}/zarr.json" for name in recorded])
    return [
        name
        for name, content in zip(recorded, contents, strict=True)
        if content is None or hashlib.sha256(content).hexdigest() != recorded[name]
    ]


def rows_in(
    row_of: Mapping[str, int], scan_ids: Sequence[str], *, path: Path, remedy: str
) -> list[int]:
    """Return the rows of scans in the store at `path`.

    Raises
    ------
    ContractError
        If a scan is not in it, with the remedy.
    """
    missing = [scan for scan in scan_ids if scan not in row_of]
    if missing:
        raise ContractError(
            f"{path}: {len(missing)} scans not in the store, first {missing[0]}; {remedy}"
        )
    return [row_of[scan] for scan in scan_ids]


class OpenStore:
    """A complete store, open for reading.

    Raises
    ------
    ContractError
        If the path is no store, of another kind or schema version, not complete, or if its
        metadata are damaged.
    """

    remedy = "make it anew"
    """Remedy that an error names for scans that are not in the store."""

    def __init__(self, path: Path, *, kind: StoreKind | None = None) -> None:
        self.group, self.attributes, units = read_record(path)
        if kind is not None and self.attributes.kind != kind:
            raise ContractError(f"{path}: a {self.attributes.kind} store, expected {kind}")
        self.files = open_files(self.group)
        damaged = damaged_arrays(self.files, units)
        if damaged:
            raise ContractError(
                f"{path / damaged[0] / 'zarr.json'}: damaged or missing; run `pipeline verify"
                f" {path} --repair`, or restore it"
            )
        self.path = path
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self.unit_rows = units.rows
        self.unit_digests = units.sha256
        self.encode_settings = row_settings(units.batch_sizes, units.threads)
        self.digest = digest_of([self.attributes.fingerprints, self.unit_digests])
        self.row_of = {scan_id: i for i, scan_id in enumerate(self.attributes.scan_ids)}

    def __len__(self) -> int:
        return len(self.attributes.scan_ids)

    def rows_of(self, scan_ids: Sequence[str]) -> list[int]:
        """Return the rows of these scans.

        Raises
        ------
        ContractError
            If a scan is not in the store.
        """
        return rows_in(self.row_of, scan_ids, path=self.path, remedy=self.remedy)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one array without reading it; its zarr.json is fetched the first time alone."""
        if name not in self._arrays:
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]

    def read(self, name: str, rows: slice | int = slice(None)) -> np.ndarray:
        """Read rows of one array into memory."""
        with self.reading(name):
            return np.asarray(self.array(name)[rows])

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn an error of reading an array into a ContractError of one line."""
        try:
            yield
        except (ValueError, RuntimeError, OSError) as error:
            reason = re.split(r"[.:] Stored", str(error))[0]  # crc32c adds both sums as bytes
            command = "verify --repair" if self.attributes.kind == "latents" else "verify"
            raise ContractError(
                f"{self.path}: {name} is damaged ({reason:.100}); run `pipeline {command}`"
            ) from error

    def fingerprint_rows(self) -> dict[str, int]:
        """Return the row of each scan fingerprint."""
        return {fingerprint: i for i, fingerprint in enumerate(self.attributes.fingerprints)}


def open_files(group: zarr.Group) -> StoreFiles:
    """Return the files of a group that `read_record` opened."""
    files = group.store
    assert isinstance(files, StoreFiles)
    return files


def _what_is_there(path: Path, files: StoreFiles) -> str:
    """Return what stands where a store was expected."""
    if re.match(r"\w+:/", str(path)) and not isinstance(files, RemoteFiles):
        return f"addresses begin with {', '.join(f'{name}://' for name in SCHEMES[:3])}"
    if isinstance(files, RemoteFiles):
        begun = "half uploaded; run `pipeline push-store` again"
        return begun if files.is_begun() else "nothing is there"
    if path.with_name(path.name + ".building").exists():
        return "still being built; run the same command again"
    return "this folder is none" if path.exists() else "no such folder"


def is_current(path: Path, attributes: StoreAttributes) -> bool:
    """Return whether a complete store with these very attributes is already at `path`.

    If so, the work folder that an interrupted swap may have left is removed.
    """
    try:
        current = OpenStore(path).attributes.model_copy(update={"complete": False}) == attributes
    except ContractError:
        return False
    if current:
        shutil.rmtree(path.with_name(path.name + ".building"), ignore_errors=True)
    return current
