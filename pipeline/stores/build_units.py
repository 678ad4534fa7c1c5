"""Units of a store under construction: their files, their marks, and what an earlier plan left."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

PLAN = "plan.json"
STORE = "store.zarr"
MARKS = "marks"


class EncodeSettings(NamedTuple):
    """Settings that a latent's last bits depend on, beside its content and library versions."""

    batch_size: int
    threads: int
    """Of the processor; 1 where another device computes."""


def mark_path(work: Path, unit: int) -> Path:
    """Return the file that says that a unit is finished."""
    return work / MARKS / f"{unit:07d}.json"


def read_plan(work: Path) -> dict[str, Any] | None:
    """Return the plan that a work folder was begun under; None if there is none or it is hurt."""
    plan = _read_json(work / PLAN)
    needed = {"digest", "settings", "unit_rows", "fingerprints"}
    return plan if plan is not None and needed <= plan.keys() else None


def unit_is_whole(work: Path, group: zarr.Group, unit: int, rows: range) -> bool:
    """Tell whether a unit has its mark, and still the content that the mark tells of."""
    mark = _read_json(mark_path(work, unit))
    if mark is None or mark.get("rows") != [rows.start, rows.stop]:
        return False
    try:
        content = {
            name: np.asarray(array[rows.start : rows.stop]) for name, array in group.arrays()
        }
    except (ValueError, RuntimeError, OSError):
        return False
    return content_digest(content) == mark.get("sha256")


def settings_of(record: Mapping[str, Any]) -> list[EncodeSettings] | None:
    """Return the settings of each row from a unit's mark or a store's record; None if not kept."""
    if not {"batch_sizes", "threads"} <= record.keys():
        return None
    columns = zip(record["batch_sizes"], record["threads"], strict=True)
    return [EncodeSettings(*row) for row in columns]


def settings_columns(settings: Sequence[EncodeSettings]) -> dict[str, list[int]]:
    """Return the columns that `settings_of` reads."""
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
    at = (row // rows_per_file(array), *[0] * (array.ndim - 1))
    return f"{name}/{array.metadata.encode_chunk_key(at)}"


def take_rows(array: zarr.Array[Any], rows: Sequence[int], *, chunks_at_once: int) -> np.ndarray:
    """Read rows in any order, in runs of so many chunks: memory does not follow their spread."""
    wanted = np.asarray(rows, dtype=np.int64)
    taken = np.empty((len(wanted), *array.shape[1:]), array.dtype)
    runs = wanted // (array.chunks[0] * chunks_at_once)
    for run in np.unique(runs):
        at = np.flatnonzero(runs == run)
        first, last = int(wanted[at].min()), int(wanted[at].max())
        taken[at] = np.asarray(array[first : last + 1])[wanted[at] - first]
    return taken


def flush(store: Path, name: str, array: zarr.Array[Any], rows: range) -> None:
    """Make sure that these rows are on the disk before a mark says so."""
    for file in {chunk_file(name, array, row) for row in rows}:
        with (store / file).open("rb") as opened:
            os.fsync(opened.fileno())


def recover_swap(out: Path) -> None:
    """Put the old store back if a kill fell between the two renames of the swap."""
    old = out.with_name(out.name + ".building") / "old.zarr"
    if not old.exists():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        old.rename(out)


def set_former_aside(work: Path) -> None:
    """Move what was built under another plan into a folder of its own."""
    number = 1 + max((int(f.name[7:]) for f in work.glob("former-*")), default=0)
    former = work / f"former-{number}"
    former.mkdir()
    # The plan comes last: a folder without one is no former.
    for name in (MARKS, STORE, PLAN):
        if (work / name).exists():
            (work / name).rename(former / name)


def formers(out: Path) -> list[Path]:
    """Return the folders of earlier plans that `set_former_aside` left for a store."""
    work = out.with_name(out.name + ".building")
    return sorted(work.glob("former-*"), key=lambda folder: int(folder.name[7:]))


def former_rows(former: Path) -> dict[str, tuple[int, EncodeSettings | None]]:
    """Return fingerprint → (row, its settings) of the whole units of an earlier plan."""
    plan = read_plan(former)
    if plan is None or not (former / STORE).exists():
        return {}
    group = zarr.open_group(former / STORE, mode="r")
    fingerprints = plan["fingerprints"]
    former_row: dict[str, tuple[int, EncodeSettings | None]] = {}
    for unit, start in enumerate(range(0, len(fingerprints), plan["unit_rows"])):
        rows = range(start, min(start + plan["unit_rows"], len(fingerprints)))
        if unit_is_whole(former, group, unit, rows):
            mark = _read_json(mark_path(former, unit)) or {}
            settings: Sequence[EncodeSettings | None] = settings_of(mark) or [None] * len(rows)
            former_row |= {fingerprints[row]: (row, settings[row - start]) for row in rows}
    return former_row


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
