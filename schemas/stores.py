"""Attributes of the Zarr stores, written once when a store is created."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

StoreKind = Literal["volumes", "latents", "semantics"]


class StoreAttributes(BaseModel):
    """What a store says about itself. Row i of every array belongs to scan_ids[i]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: StoreKind
    made_by: str
    """Package name and version."""
    params: dict[str, Any]
    """The params sections that decide the content."""
    digests: dict[str, str]
    """sha256 of what made the store: `autoencoder`, `preprocessing`, `ldae`, as they apply."""
    grid: dict[str, Any]
    """`shape`, `affine` (voxel to MNI152 world, mm) and `orientation` of the volumes."""
    scan_ids: list[str]
    fingerprints: list[str]
    """One a scan: digest of its source and of everything that was done to it."""
    complete: bool = False
    """Set last; a store without it does not open."""
