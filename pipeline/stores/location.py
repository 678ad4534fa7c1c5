"""Where a store lies: a folder, a zip file, or object storage (s3://, gs://, https://).

Here alone a path becomes a store of Zarr. Wherever it lies, a chunk that is not there is an error;
Zarr would return its fill value in silence.
"""

import asyncio
import re
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore, ZipStore

from schemas.errors import ContractError

SCHEMES = ("s3", "gs", "https", "http")
METADATA = "zarr.json"
FILES_AT_ONCE = 64
"""Files that are asked for at the same time."""


def is_remote(path: Path) -> bool:
    """Return whether a path names a store in object storage; a path drops the second slash."""
    return re.match(rf"({'|'.join(SCHEMES)}):/", str(path)) is not None


def shown(path: Path) -> str:
    """Return a path as its owner writes it, with both slashes after the scheme."""
    return re.sub(r"^(\w+):/(?=[^/])", r"\1://", str(path)) if is_remote(path) else str(path)


def absolute(path: Path) -> Path:
    """Return a path for processes in other folders."""
    return path if is_remote(path) else path.absolute()


def is_zip(path: Path) -> bool:
    """Return whether a path names a store in a zip file."""
    return path.suffix == ".zip" and not is_remote(path)


def is_folder(path: Path) -> bool:
    """Return whether a store at this path would be a folder, the one place that is written to."""
    return not (is_remote(path) or is_zip(path))


class MissingChunkError(OSError):
    """A chunk of a store is not where its record expects it."""


class StoreFiles(WrapperStore[Store]):
    """The files of one store, read-only; a missing chunk raises instead of being filled in."""

    def __init__(self, store: Store, *, folder: str = "") -> None:
        """`folder` is where the store lies within `store`, empty or with a slash at its end."""
        super().__init__(store)
        self.folder = folder
        self.arrays: tuple[str, ...] = ()
        """Names of the arrays by the store's record, for places that cannot be listed."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the content of a file; None for metadata that are not there.

        Raises
        ------
        MissingChunkError
            If a chunk is not there.
        """
        value = await self._store.get(self.folder + key, prototype, byte_range)
        if value is None and "/c/" in key:
            raise MissingChunkError(f"chunk file {key} is missing")
        return value

    async def exists(self, key: str) -> bool:
        """Return whether there is a file."""
        return await self._store.exists(self.folder + key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder: at the top those of the record, where it was read."""
        if self.arrays and not prefix.strip("/"):
            for name in self.arrays:
                yield name
            return
        async for name in self._store.list_dir(self.folder + prefix):
            yield name

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of files, asked for at once; None for one that is not there."""

        async def one(name: str) -> bytes | None:
            value = await self.get(name, default_buffer_prototype())
            return None if value is None else value.to_bytes()

        return sync(_at_once([one(name) for name in names]))

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return those of the files that are not there; nothing is read."""
        there = sync(_at_once([self.exists(name) for name in names]))
        return [name for name, found in zip(names, there, strict=True) if not found]


async def _at_once(calls: Sequence[Any]) -> list[Any]:
    free = asyncio.Semaphore(FILES_AT_ONCE)

    async def one(call: Any) -> Any:
        async with free:
            return await call

    return list(await asyncio.gather(*map(one, calls)))


def open_location(path: Path) -> StoreFiles:
    """Return the files of the store at a path, for reading.

    Raises
    ------
    ContractError
        If a zip file is damaged or holds no store.
    ParamsError
        If the place is remote and the extra `remote` is not installed.
    """
    if is_remote(path):
        from pipeline.stores.remote import open_remote

        return open_remote(shown(path))
    if is_zip(path) and path.is_file():
        return _open_zip(path)
    return StoreFiles(LocalStore(path, read_only=True))


def _open_zip(path: Path) -> StoreFiles:
    """Return the files of a zipped store, at its top or in a folder of the zip file."""
    try:
        with zipfile.ZipFile(path) as opened:
            records = [n for n in opened.namelist() if Path(n).name == METADATA]
    except (zipfile.BadZipFile, OSError) as error:
        raise ContractError(f"{path}: no zip file, or a damaged one ({error})") from error
    if not records:
        raise ContractError(f"{path}: expected a Zarr store in the zip file, found none")
    top = min(records, key=lambda name: name.count("/"))
    files = sync(ZipStore.open(path, mode="r"))  # one that is not open asks for a lock it lacks
    return StoreFiles(files, folder=top.removesuffix(METADATA))


def refuse_remote_target(path: Path, option: str) -> None:
    """Refuse to write anywhere but on this machine's file system.

    Raises
    ------
    ContractError
        With the remedy.
    """
    if is_remote(path):
        raise ContractError(
            f"{option} {shown(path)}: written on this machine alone; give a folder, then upload a"
            " finished store by `pipeline push-store`"
        )
