"""Digests of values and files, and the seeds made from them."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def seed_from(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, never on iteration order."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


def digest_of(value: Any) -> str:
    """Return the sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def other_half(path: Path) -> Path | None:
    """Return the file that belongs to a `.hdr` or `.img` (in its letter case), there or not."""
    partner = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(path.suffix)
    return path.with_suffix(partner) if partner else None


def digest_image(path: Path) -> str:
    """Return the digest of an image: of both files where it is a `.hdr/.img` pair."""
    partner = other_half(path)
    if partner is None or not partner.is_file():
        return digest_file(path)
    return digest_of(sorted(digest_file(p) for p in (path, partner)))
