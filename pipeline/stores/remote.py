"""Stores in object storage, read through obstore: retries, time limits, errors of one line."""

import os
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from pipeline.stores.location import FILES_AT_ONCE, StoreFiles
from schemas.errors import ParamsError, PipelineError

RETRIES = 4
PATIENCE = timedelta(seconds=60)
"""Time over all tries of one file, after which no further one begins."""
CONNECT = timedelta(seconds=5)
ANSWER = timedelta(seconds=120)
"""Time for one file, a few MB, to arrive."""
AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Where none of these is set, requests to s3:// are not signed: a public bucket."""
LOCALHOST = {"localhost", "127.0.0.1", "::1"}
REASONS: tuple[tuple[str, str], ...] = (
    (
        r"status code: 40[13]\b|PermissionDenied|PermissionError|Unauthenticated|credential",
        "access is refused (403); credentials come from the environment, AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY or GOOGLE_APPLICATION_CREDENTIALS",
    ),
    (
        r"Range request not supported",
        "the server sends whole files alone; shards need one that answers range requests",
    ),
    (
        r"TimedOut|operation timed out|TimeoutError",
        f"no answer in time after {RETRIES} more tries; try again later",
    ),
    (
        r"ConnectError|Connection ?Refused|trying to connect|dns error|unreachable",
        f"the server cannot be reached after {RETRIES} more tries; see the address"
        " (AWS_ENDPOINT_URL for a server of your own) and the network",
    ),
)
"""Pattern in the client's message, and what is told of it."""


class RemoteError(PipelineError):
    """Object storage did not give a file: no access, no answer. Nothing is known of the store."""


class RemoteFiles(StoreFiles):
    """The files of a store in object storage."""

    def __init__(self, store: Store, *, address: str) -> None:
        super().__init__(store)
        self.address = address

    def _with_store(self, store: Store) -> "RemoteFiles":
        return type(self)(store, address=self.address)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the content of a file; see `StoreFiles.get`.

        Raises
        ------
        RemoteError
            If there is no access or no answer.
        """
        try:
            return await super().get(key, prototype, byte_range)
        except client_errors() as error:
            raise remote_error(f"{self.address}/{key}", error) from error

    async def exists(self, key: str) -> bool:
        """Return whether there is a file; `RemoteError` if that cannot be told."""
        try:
            return await super().exists(key)
        except client_errors() as error:
            raise remote_error(f"{self.address}/{key}", error) from error

    def is_begun(self) -> bool:
        """Return whether anything lies below the address, where that can be listed."""
        unknown: tuple[type[Exception], ...] = (NotImplementedError, *client_errors())
        try:
            return bool(next(iter(self.client.list(chunk_size=1)), []))
        except unknown:
            return False

    @property
    def client(self) -> Any:
        """The store of obstore."""
        return self._store.store  # type: ignore[attr-defined]


def open_remote(address: str) -> RemoteFiles:
    """Return the files of the store at s3://, gs:// or https://.

    Raises
    ------
    ParamsError
        If the address has another form, or obstore is not installed.
    """
    # Zarr asks for ten chunks at a time; each answer is waited for, so as many as of other files.
    zarr.config.set({"async.concurrency": FILES_AT_ONCE})
    return RemoteFiles(ObjectStore(open_client(address), read_only=True), address=address)


def open_client(address: str) -> Any:
    """Return obstore's store for an address; nothing is asked of the server yet.

    Raises
    ------
    ParamsError
        If the address has another form, or obstore is not installed.
    """
    try:
        from obstore.store import GCSStore, HTTPStore, S3Store
    except ModuleNotFoundError as error:
        raise ParamsError(
            f"{address}: needs a client of object storage; pip install 'ldae-pipeline[remote]'"
        ) from error
    parts = urlsplit(address)
    key = parts.path.strip("/")
    if not parts.netloc or not key or parts.query:
        raise ParamsError(f"{address}: expected {parts.scheme}://BUCKET_OR_HOST/PATH of one store")
    kept: dict[str, Any] = {
        "retry_config": {"max_retries": RETRIES, "retry_timeout": PATIENCE},
        "client_options": {"connect_timeout": CONNECT, "timeout": ANSWER},
    }
    # Options given here go before the client's own reading of AWS_ALLOW_HTTP.
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    on_this_machine = urlsplit(endpoint).hostname in LOCALHOST
    if parts.scheme == "s3" and (on_this_machine or _is_true("AWS_ALLOW_HTTP")):
        kept["client_options"]["allow_http"] = True
    if parts.scheme == "s3":
        unsigned = not any(name in os.environ for name in AWS_CREDENTIALS)
        signing: dict[str, Any] = {"skip_signature": True} if unsigned else {}
        return S3Store(parts.netloc, prefix=key, **signing, **kept)
    if parts.scheme == "gs":
        return GCSStore(parts.netloc, prefix=key, **kept)
    if parts.scheme == "http" and parts.hostname not in LOCALHOST:
        raise ParamsError(f"{address}: unencrypted; use https://")
    if parts.scheme == "http":
        kept["client_options"]["allow_http"] = True
    return HTTPStore.from_url(address.rstrip("/"), **kept)


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"1", "true", "yes", "on"}


def remote_error(file: str, error: Exception) -> RemoteError:
    """Return one line for an error of obstore about a file."""
    text = " ".join(f"{type(error).__name__} {error}".split())
    reason = next((told for pattern, told in REASONS if re.search(pattern, text)), None)
    return RemoteError(f"{file}: {reason or f'cannot be read ({text:.160})'}")


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors that the client raises, but for a file that is not there."""
    from obstore.exceptions import BaseError

    return BaseError, PermissionError, TimeoutError, ConnectionError
