"""Attributes of the Zarr stores, written once when a store is created."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from schemas.grid import Grid

SCHEMA_VERSION = 1

StoreKind = Literal["volumes", "latents", "semantics"]


class StoreAttributes(BaseModel):
    """Attributes of a store. Row i of every array belongs to scan_ids[i]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: StoreKind
    made_by: str
    """Package name and version."""
    params: dict[str, Any]
    """The params sections that decide the content."""
    digests: dict[str, str]
    """sha256 of what made the store: `autoencoder`, `preprocessing`, `ldae`, as they apply."""
    grid: Grid
    """Of the volumes."""
    scan_ids: list[str]
    fingerprints: list[str]
    """One a scan: digest of its source and of everything that was done to it."""
    complete: bool = False
    """Set last; a store without it does not open."""

    @property
    def contrast(self) -> str:
        """Contrast of the images; stores of T1w do not record it."""
        preprocess = self.params.get("preprocess", {})
        return str(self.params.get("contrast") or preprocess.get("contrast") or "T1w")

    def contrast_record(self) -> dict[str, str]:
        """Return the entry of `params` of a store that is made of this one."""
        return {} if self.contrast == "T1w" else {"contrast": self.contrast}


class UnitRecord(BaseModel):
    """Record of a store's units, the runs of rows written at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    """Scans a unit; the last may hold fewer."""
    sha256: list[str]
    """One a unit: digest of its content over all arrays, in order of their names."""
    batch_sizes: list[int] | None = None
    """One a scan (latents): scans of its forward pass, which may decide the last bit."""
    threads: list[int] | None = None
    """One a scan (latents): threads of its forward pass on the processor, which may too."""
    metadata_sha256: dict[str, str] = {}
    """Digest of each array's zarr.json."""


class StoreRecord(StoreAttributes):
    """The attributes of a complete store, as they stand in its zarr.json."""

    units: UnitRecord
    record_sha256: str = ""
    """Digest of all the other attributes, as JSON with sorted keys."""
