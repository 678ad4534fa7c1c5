"""Files written whole or not at all, and locks on what is being written."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from schemas.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, default=str) + "\n")


def write_parquet(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomic(path, buffer.getvalue())


LOCK_PATIENCE_S = 0.4
"""How long a lock is waited for: a command that only reads holds it for a moment."""


@contextmanager
def lock_store(out: Path, *, patience: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold the exclusive lock of a store or model folder for the duration of the block.

    It is waited for at most `patience` seconds. The lock file stays beside the store, as flock's
    do: whoever removed it would split the waiting.

    Raises
    ------
    ContractError
        If another process is writing the same store.
    """
    out = real_path(out)
    # A filesystem without flock is an error: what stands in for it there outlives a killed process.
    lock = FileLock(out.with_name(f".{out.name}.lock"), fallback_to_soft=False)
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=patience, poll_interval=0.1)
        except Timeout as error:
            raise ContractError(
                f"{out}: another process is writing it; wait for it or stop it"
            ) from error
    try:
        yield
    finally:
        lock.release()


def real_path(out: Path) -> Path:
    """Return the real path of a store: one built beside a link could not be renamed into place."""
    return out.resolve() if out.is_symlink() or out.name in {"", ".."} else out


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turn an error of the operating system (disk full, read-only) into one clear line."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise ContractError(
            f"{error.filename}: a file is where a folder is wanted; choose another place"
        ) from error
    except OSError as error:
        raise ContractError(
            f"{out}: cannot be written ({error.strerror or error}); what is finished is kept, make"
            " room or choose another place, and run the same command again"
        ) from error
