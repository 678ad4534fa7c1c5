"""Open a store of any kind, and check it."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError

from pipeline.runtime.digests import digest_file, digest_of
from pipeline.stores.build_units import settings_of
from schemas.errors import ContractError
from schemas.stores import SCHEMA_VERSION, StoreAttributes, StoreKind

GROUP = {"zarr_format": 3, "node_type": "group"}
"""What the group's zarr.json says beside its attributes."""
OURS = {"kind", "fingerprints", "scan_ids", "record_sha256"}
"""Attributes of every store of this project; damage does not take them all."""

HEAL = "restore it, or `pipeline verify --repair` if it is a latent store"


class RecordError(ContractError):
    """A store's own record, from which everything else in it is checked, is damaged."""

    scan_ids: tuple[str, ...] = ()
    """The scans as far as they can still be read."""


def read_record(path: Path) -> tuple[zarr.Group, StoreAttributes, dict[str, Any]]:
    """Return a store's group, its attributes, and what is recorded about its units.

    Raises
    ------
    RecordError
        If the record does not agree with its own digest, or is no record at all.
    ContractError
        If the path is no store, of another schema version, or not complete.
    """
    if not (path / "zarr.json").is_file():
        if _building(path):
            hint = "still being built; run the same command again"
        else:
            hint = "this folder is none" if path.exists() else "no such folder"
        raise ContractError(f"{path}: expected a Zarr store, found none ({hint})")
    raw = _raw_attributes(path)
    try:
        units = raw.pop("units", None)
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ContractError(
                f"{path}: schema version {version}, expected {SCHEMA_VERSION}; make it again"
            )
        attributes = StoreAttributes.model_validate(raw)
        group = zarr.open_group(path, mode="r")
    except (ValidationError, ValueError, KeyError, TypeError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"{path}: no store of this project ({reason:.120})") from error
    if not attributes.complete or units is None:
        raise ContractError(f"{path}: not complete; run the command that makes it again")
    return group, attributes, units


def _raw_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes in a store's zarr.json, checked against their own digest."""
    file = path / "zarr.json"
    try:
        document = json.loads(file.read_bytes())
        raw: dict[str, Any] = dict(document.pop("attributes"))
    except OSError as error:
        raise ContractError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{file}: damaged, no store's record; {HEAL}") from error
    if not OURS & raw.keys():
        raise ContractError(f"{path}: no store of this project")
    ids = raw.get("scan_ids")
    document.pop("consolidated_metadata", None)
    digest = raw.pop("record_sha256", None)
    if document != GROUP or digest not in (None, digest_of(raw)):
        hurt = RecordError(f"{file}: damaged, differs from its own digest; {HEAL}")
        hurt.scan_ids = tuple(map(str, ids)) if isinstance(ids, list) else ()
        raise hurt
    return raw


def hurt_metadata(path: Path, units: dict[str, Any]) -> list[str]:
    """Return the arrays whose zarr.json is not the recorded one."""
    recorded: dict[str, str] = units.get("metadata_sha256", {})
    files = {name: path / name / "zarr.json" for name in recorded}
    return [
        name
        for name, file in files.items()
        if not file.is_file() or digest_file(file) != recorded[name]
    ]


class OpenStore:
    """A complete store, open for reading.

    Raises
    ------
    ContractError
        If the path is no store, of another kind or schema version, not complete, or if what
        describes its content is damaged.
    """

    remedy = "make it anew"
    """What to do about scans that are not in it."""

    def __init__(self, path: Path, *, kind: StoreKind | None = None) -> None:
        self.group, self.attributes, units = read_record(path)
        if kind is not None and self.attributes.kind != kind:
            raise ContractError(f"{path}: a {self.attributes.kind} store, expected {kind}")
        hurt = hurt_metadata(path, units)
        if hurt:
            raise ContractError(
                f"{path / hurt[0] / 'zarr.json'}: damaged or missing; run `pipeline verify {path}"
                " --repair`, or restore it"
            )
        self.path = path
        self.unit_rows: int = units["rows"]
        self.unit_digests: list[str] = units["sha256"]
        self.encode_settings = settings_of(units)
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
        missing = [s for s in scan_ids if s not in self.row_of]
        if missing:
            raise ContractError(
                f"{self.path}: {len(missing)} scans not in the store, first {missing[0]};"
                f" {self.remedy}"
            )
        return [self.row_of[s] for s in scan_ids]

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one array, unread."""
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array

    def read(self, name: str, rows: slice | int = slice(None)) -> np.ndarray:
        """Read rows of one array into memory."""
        with self.reading(name):
            return np.asarray(self.array(name)[rows])

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn what goes wrong while an array is read into one clear line."""
        try:
            yield
        except (ValueError, RuntimeError, OSError) as error:
            what = re.split(r"[.:] Stored", str(error))[0]  # crc32c adds both sums as bytes
            heal = "verify --repair" if self.attributes.kind == "latents" else "verify"
            raise ContractError(
                f"{self.path}: {name} is damaged ({what:.100}); run `pipeline {heal}`"
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
