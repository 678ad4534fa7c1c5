"""Units of a store under construction: their files, marks with digests, and former plans."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from pipeline.runtime.files import write_json

PLAN = "plan.json"
STORE = "store.zarr"
MARKS = "marks"


class EncodeSettings(NamedTuple):
    """Settings of a forward pass that may change the last bits of a latent."""

    batch_size: int
    threads: int
    """Threads of the processor; 1 where another device computes."""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Plan of a store under construction, kept in its work folder as plan.json."""

    digest: str
    """Digest of the attributes, the arrays and the size of a unit."""
    settings: dict[str, Any]
    """Settings chosen when the store was begun; later starts go on with them."""
    unit_rows: int
    fingerprints: list[str]
    """Fingerprint of each scan."""


def read_plan(work: Path) -> BuildPlan | None:
    """Return the plan of a work folder; None if there is none or it is damaged."""
    document = _read_json(work / PLAN)
    names = {field.name for field in fields(BuildPlan)}
    if document is None or not names <= document.keys():
        return None
    return BuildPlan(**{name: document[name] for name in names})


def write_plan(work: Path, plan: BuildPlan) -> None:
    """Write the plan of a work folder."""
    write_json(work / PLAN, asdict(plan))


@dataclass(frozen=True, slots=True)
class UnitMark:
    """Mark of a finished unit: its rows, the digest of its content, the settings of each row."""

    rows: range
    sha256: str
    settings: list[EncodeSettings] | None = None
    """One a row; None where the store does not record them."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "UnitMark":
        """Return the mark that a JSON document holds."""
        settings = row_settings(document.get("batch_sizes"), document.get("threads"))
        return cls(range(*document["rows"]), document["sha256"], settings)

    def document(self) -> dict[str, Any]:
        """Return the mark as it is written to JSON."""
        columns = settings_columns(self.settings) if self.settings is not None else {}
        return {"rows": [self.rows.start, self.rows.stop], "sha256": self.sha256} | columns


def mark_path(work: Path, unit: int) -> Path:
    """Return the path of the file that marks a unit as finished."""
    return work / MARKS / f"{unit:07d}.json"


def read_whole_unit(work: Path, group: zarr.Group, unit: int, rows: range) -> UnitMark | None:
    """Return the mark of a unit whose rows and content still agree with it, else None."""
    document = _read_json(mark_path(work, unit))
    if document is None or document.get("rows") != [rows.start, rows.stop]:
        return None
    try:
        content = {
            name: np.asarray(array[rows.start : rows.stop]) for name, array in group.arrays()
        }
    except (ValueError, RuntimeError, OSError):
        return None
    if content_digest(content) != document.get("sha256"):
        return None
    return UnitMark.from_document(document)


def row_settings(
    batch_sizes: Sequence[int] | None, threads: Sequence[int] | None
) -> list[EncodeSettings] | None:
    """Return the settings of each row from their two columns; None where these are not recorded."""
    if batch_sizes is None or threads is None:
        return None
    return [EncodeSettings(*row) for row in zip(batch_sizes, threads, strict=True)]


def settings_columns(settings: Sequence[EncodeSettings]) -> dict[str, list[int]]:
    """Return the settings of rows as the two columns of marks and store records."""
    return {
        "batch_sizes": [row.batch_size for row in settings],
        "threads": [row.threads for row in settings],
    }


def content_digest(content: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 over the arrays of one unit, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(content[name]).tobytes())
    return digest.hexdigest()


def rows_per_file(array: zarr.Array[Any]) -> int:
    """Return the number of rows in a chunk file (a shard, where there are shards)."""
    return int((array.shards or array.chunks)[0])


def chunk_file(name: str, array: zarr.Array[Any], row: int) -> str:
    """Return the path, below the store, of the file that holds a row."""
    chunk = (row // rows_per_file(array), *[0] * (array.ndim - 1))
    return f"{name}/{array.metadata.encode_chunk_key(chunk)}"


def take_rows(array: zarr.Array[Any], rows: Sequence[int], *, chunks_at_once: int) -> np.ndarray:
    """Read rows in any order, `chunks_at_once` chunks at a time to bound the memory."""
    wanted = np.asarray(rows, dtype=np.int64)
    taken = np.empty((len(wanted), *array.shape[1:]), array.dtype)
    runs = wanted // (array.chunks[0] * chunks_at_once)
    for run in np.unique(runs):
        at = np.flatnonzero(runs == run)
        first, last = int(wanted[at].min()), int(wanted[at].max())
        taken[at] = np.asarray(array[first : last + 1])[wanted[at] - first]
    return taken


def flush(store: Path, name: str, array: zarr.Array[Any], rows: range) -> None:
    """Flush the chunk files of these rows to the disk (fsync), before they are marked."""
    for file in {chunk_file(name, array, row) for row in rows}:
        with (store / file).open("rb") as opened:
            os.fsync(opened.fileno())


def recover_swap(out: Path) -> None:
    """Restore the old store if the process was killed between the two renames of the swap."""
    old = out.with_name(out.name + ".building") / "old.zarr"
    if not old.exists():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        old.rename(out)


def set_former_aside(work: Path) -> None:
    """Move the units that were built under another plan into a folder `former-N`."""
    number = 1 + max((int(f.name[7:]) for f in work.glob("former-*")), default=0)
    former = work / f"former-{number}"
    former.mkdir()
    # The plan comes last: a folder without one is not read.
    for name in (MARKS, STORE, PLAN):
        if (work / name).exists():
            (work / name).rename(former / name)


def former_folders(out: Path) -> list[Path]:
    """Return the folders that `set_former_aside` left for a store, oldest first."""
    work = out.with_name(out.name + ".building")
    return sorted(work.glob("former-*"), key=lambda folder: int(folder.name[7:]))


def former_rows(former: Path) -> dict[str, tuple[int, EncodeSettings | None]]:
    """Return fingerprint → (row, its settings) of the undamaged units of a former plan."""
    plan = read_plan(former)
    if plan is None or not (former / STORE).exists():
        return {}
    group = zarr.open_group(former / STORE, mode="r")
    fingerprints = plan.fingerprints
    row_of: dict[str, tuple[int, EncodeSettings | None]] = {}
    for unit, start in enumerate(range(0, len(fingerprints), plan.unit_rows)):
        rows = range(start, min(start + plan.unit_rows, len(fingerprints)))
        mark = read_whole_unit(former, group, unit, rows)
        if mark is not None:
            settings: Sequence[EncodeSettings | None] = mark.settings or [None] * len(rows)
            row_of |= {fingerprints[row]: (row, settings[row - start]) for row in rows}
    return row_of


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
