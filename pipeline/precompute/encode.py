"""volumes.zarr → latents.zarr: the frozen autoencoder over every scan, once."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline import __version__
from pipeline.compute import digest_of, progress
from pipeline.frozen import FrozenAutoencoder
from pipeline.stores.builder import StoreBuilder, lock_store
from pipeline.stores.latents import LOGVAR_RANGE, LatentStore, latent_arrays
from pipeline.stores.reading import is_current
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """What one call did."""

    scans: int
    encoded: int
    reused: int
    seconds: float


def encode_volumes(
    volumes: VolumeStore,
    autoencoder: FrozenAutoencoder,
    out: Path,
    params: EncodeParams,
    *,
    device: torch.device,
    replace: bool = False,
) -> EncodeSummary:
    """Encode every scan of a volume store; scans encoded before are copied, not redone.

    `replace` allows a store that was made with another autoencoder or precision to be made anew.

    Raises
    ------
    ContractError
        If `out` was made with another autoencoder or precision and `replace` is off, if it is
        something else, or if the grid does not fit the autoencoder.
    """
    started = time.monotonic()
    attributes = _plan(volumes, autoencoder, params)
    try:
        shape = autoencoder.net.latent_shape(tuple(attributes.grid["shape"]))
    except ValueError as error:
        raise ContractError(f"{volumes.path}: {error}") from error
    with lock_store(out):
        if is_current(out, attributes):
            return EncodeSummary(len(volumes), 0, len(volumes), time.monotonic() - started)
        previous = _previous_rows(out, attributes, replace=replace)
        arrays = latent_arrays(shape, rows_per_chunk=params.chunk_scans)
        builder = StoreBuilder(out, attributes, arrays, unit_rows=params.chunk_scans)
        encoder = _Encoder(volumes, autoencoder, params, device)
        encoded = _fill(builder, encoder, previous)
        builder.finish()
    total = len(volumes)
    return EncodeSummary(total, encoded, total - encoded, time.monotonic() - started)


def _plan(
    volumes: VolumeStore, autoencoder: FrozenAutoencoder, params: EncodeParams
) -> StoreAttributes:
    made = {"autoencoder": autoencoder.digest, "precision": params.precision}
    return StoreAttributes(
        kind="latents",
        made_by=f"ldae-pipeline {__version__}",
        params={"encode": {"precision": params.precision, "chunk_scans": params.chunk_scans}},
        digests=dict(volumes.attributes.digests) | {"autoencoder": autoencoder.digest},
        grid=volumes.attributes.grid,
        scan_ids=volumes.attributes.scan_ids,
        fingerprints=[
            digest_of(made | {"volume": volume}) for volume in volumes.attributes.fingerprints
        ],
    )


@dataclass(frozen=True, slots=True)
class _Previous:
    """Rows of an earlier store that are still good."""

    store: LatentStore | None
    rows: dict[str, int]


def _previous_rows(out: Path, attributes: StoreAttributes, *, replace: bool) -> _Previous:
    if not out.exists():
        return _Previous(None, {})
    try:
        store = LatentStore(out)
    except ContractError:
        if replace:
            return _Previous(None, {})
        raise
    old, new = store.attributes, attributes
    same = old.params["encode"]["precision"] == new.params["encode"]["precision"]
    if old.digests.get("autoencoder") != new.digests["autoencoder"] or not same:
        if replace:
            return _Previous(None, {})
        raise ContractError(
            f"{out}: made with another autoencoder or precision; choose a new --out, or add"
            " --replace to make it anew"
        )
    return _Previous(store, store.fingerprint_rows())


class _Encoder:
    """Reads volumes and encodes them in batches of one constant size.

    The last batch of a chunk is filled up, so that a scan's latent never depends on how many
    scans came with it.
    """

    def __init__(
        self,
        volumes: VolumeStore,
        autoencoder: FrozenAutoencoder,
        params: EncodeParams,
        device: torch.device,
    ) -> None:
        self.volumes = volumes
        self.net = autoencoder.net
        self.batch_size = params.batch_size
        self.autocast = params.precision == "bf16"
        self.device = device

    def read(self, rows: list[int]) -> np.ndarray:
        """Read volumes as uint8 (scan, X, Y, Z)."""
        if rows == list(range(rows[0], rows[-1] + 1)):
            return self.volumes.read("volume", slice(rows[0], rows[-1] + 1))
        return np.stack([self.volumes.read("volume", row) for row in rows])

    @torch.inference_mode()
    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(batch)
        if count < self.batch_size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.batch_size - count, axis=0)])
        x = torch.from_numpy(batch).to(self.device)[:, None].float() / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            mean, logvar = self.net.encode(x)
        return _half(mean[:count]), _half(logvar[:count].clamp(*LOGVAR_RANGE))


def _half(values: Float[Tensor, "B C X Y Z"]) -> np.ndarray:
    return values.float().cpu().numpy().astype(np.float16)


def _fill(builder: StoreBuilder, encoder: _Encoder, previous: _Previous) -> int:
    """Write every pending unit: read ahead in one thread, write behind in another."""
    fingerprints = builder.attributes.fingerprints
    pending = builder.pending()
    jobs: list[tuple[range, list[int]]] = []
    for unit in pending:
        fresh = [i for i in unit if fingerprints[i] not in previous.rows]
        cuts = range(0, len(fresh), encoder.batch_size)
        jobs += [(unit, fresh[i : i + encoder.batch_size]) for i in cuts] or [(unit, [])]
    total = sum(len(fresh) for _, fresh in jobs)
    log.info("encoding %d of %d scans", total, builder.num_rows)
    content: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: list[Future[None]] = []
        ahead: Future[np.ndarray] | None = None
        for i, (unit, fresh) in enumerate(progress(jobs, total=len(jobs), label="encode")):
            batch = ahead.result() if ahead else encoder.read(fresh) if fresh else None
            following = jobs[i + 1][1] if i + 1 < len(jobs) else []
            ahead = reader.submit(encoder.read, following) if following else None
            if not content:
                content = _reused(builder, unit, previous)
            if batch is not None:
                mean, logvar = encoder(batch)
                at = [row - unit.start for row in fresh]
                content["posterior_mean"][at] = mean
                content["posterior_logvar"][at] = logvar
            if i + 1 == len(jobs) or jobs[i + 1][0] != unit:
                written.append(writer.submit(builder.write, unit, content))
                content = {}
        for future in written:
            future.result()
    return total


def _reused(builder: StoreBuilder, unit: range, previous: _Previous) -> dict[str, np.ndarray]:
    """Return the arrays of a unit, with the rows filled in that an earlier store holds."""
    content = {
        name: np.full((len(unit), *array.shape[1:]), np.nan, np.float16)
        for name, array in builder.group.arrays()
    }
    for row in unit:
        old = previous.rows.get(builder.attributes.fingerprints[row])
        if old is not None and previous.store is not None:
            for name, values in content.items():
                values[row - unit.start] = previous.store.read(name, old)
    return content
