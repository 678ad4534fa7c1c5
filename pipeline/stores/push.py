"""Upload of a finished store: its record goes last, so that half an upload is no store."""

import os
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.runtime.files import writing_to
from pipeline.runtime.progress import Progress
from pipeline.stores.location import METADATA, is_folder, is_remote, is_zip, shown
from pipeline.stores.open_store import OpenStore
from pipeline.stores.pack import pack_store
from pipeline.stores.remote import (
    client_errors,
    open_client,
    open_remote,
    remote_error,
)
from pipeline.stores.verify import refuse_damaged
from schemas.errors import ContractError, ParamsError

UPLOADS_AT_ONCE = 16


def push_store(source: Path, target: Path) -> int:
    """Upload a store to s3:// or gs://, or write it into a zip file; return the number of files.

    0 is returned where the very same store is there already. A store that is there is never
    changed: readers could see half of each.

    Raises
    ------
    ContractError
        If the source is unfinished or damaged, or another store is at the target.
    RemoteError
        If there is no access or no answer; run again, which uploads all but the record anew.
    """
    if not is_folder(source):
        raise ParamsError(f"{shown(source)}: expected the folder of a store, to be uploaded")
    if not (is_zip(target) or str(target).startswith(("s3:/", "gs:/"))):
        raise ParamsError(f"{shown(target)}: expected s3://BUCKET/PATH, gs://BUCKET/PATH or a .zip")
    store = OpenStore(source)
    refuse_damaged(store)
    if not is_remote(target):
        return _write_zip(source, target)
    with tempfile.TemporaryDirectory() as folder:
        packed = pack_store(store, Path(folder) / "packed.zarr")
        return _upload(packed, shown(target), as_it_is=(source / METADATA).read_bytes())


def _files_of(source: Path) -> list[str]:
    """Return the files of a store, below it, but for its record, in order of their names."""
    found = (path for path in sorted(source.rglob("*")) if path.is_file())
    return [path.relative_to(source).as_posix() for path in found if path != source / METADATA]


def _upload(source: Path, address: str, *, as_it_is: bytes) -> int:
    """Upload a store; `as_it_is` is the record of the same store in the chunks that it had."""
    files, record = _files_of(source), (source / METADATA).read_bytes()
    there = open_remote(address).read([METADATA])[0]
    if there == as_it_is or _is_there(there, record, address):
        return 0
    client = open_client(address)
    with (
        Progress("upload", total=len(files)) as bar,
        ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool,
    ):
        for _ in pool.map(lambda name: _put(client, name, source / name, address), files):
            bar.advance()
    _put(client, METADATA, record, address)
    return len(files) + 1


def _put(client: Any, name: str, content: Path | bytes, address: str) -> None:
    import obstore

    try:
        obstore.put(client, name, content)
    except FileNotFoundError as error:
        raise ContractError(f"{address}: no such bucket; make it, or choose another") from error
    except client_errors() as error:
        raise remote_error(f"{address}/{name}", error) from error


def _is_there(there: bytes | None, record: bytes, target: str) -> bool:
    """Return whether the very same store is at the target.

    Raises
    ------
    ContractError
        If another one is.
    """
    if there is not None and there != record:
        raise ContractError(
            f"{target}: another store is there, and none is changed in place; choose another name"
        )
    return there is not None


def _write_zip(source: Path, target: Path) -> int:
    files, record = _files_of(source), (source / METADATA).read_bytes()
    if target.exists():
        try:
            with zipfile.ZipFile(target) as opened:
                there: bytes | None = opened.read(METADATA)
        except (zipfile.BadZipFile, KeyError):
            there = b""
        if _is_there(there, record, str(target)):
            return 0
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as opened:
                for name in (*files, METADATA):
                    opened.write(source / name, name)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return len(files) + 1
