"""Files written whole or not at all, and locks on what is being written."""

import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

import fcntl

from schemas.errors import ContractError


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


LOCK_ATTEMPTS = 5


@contextmanager
def lock_store(out: Path) -> Iterator[None]:
    """Hold the exclusive lock of a store or model folder for the duration of the block.

    Raises
    ------
    ContractError
        If another process is writing the same store.
    """
    out = real_path(out)
    path = out.with_name(f".{out.name}.lock")
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    with lock as file:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                # A command that only looks holds the lock for a moment.
                if attempt + 1 == LOCK_ATTEMPTS:
                    raise ContractError(
                        f"{out}: another process is writing it; wait for it or stop it"
                    ) from error
                time.sleep(0.1)
        yield


def real_path(out: Path) -> Path:
    """Return where a store really is: what is built beside a link could not be swapped in."""
    return out.resolve() if out.is_symlink() or out.name in {"", ".."} else out


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turn what the operating system refuses (disk full, read-only) into one clear line."""
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
