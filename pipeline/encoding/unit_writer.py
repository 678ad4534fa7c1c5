"""Fill the units of a latent store: read ahead, encode, write behind."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zarr

from pipeline.encoding.batch_encoder import Encoder
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.runtime.devices import torch_threads
from pipeline.stores.build_units import Made, take_rows
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays
from pipeline.stores.volumes import VolumeStore
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Previous:
    """Rows of earlier stores that are still good."""

    stores: tuple[Path, ...] = ()
    rows: dict[str, tuple[int, int]] | None = None
    """Scan fingerprint → (which store, its row)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that decides what the units hold; it travels to other processes."""

    volumes: Path
    autoencoder: Path
    autoencoder_digest: str
    out: Path
    attributes: StoreAttributes
    latent_shape: tuple[int, ...]
    chunk_scans: int
    precision: str
    previous: Previous
    made: list[Made]
    """One a scan: how it is to be encoded, or was where an earlier store holds it."""

    def fresh_rows(self, unit: range) -> list[int]:
        """Return the rows of a unit that no earlier store holds."""
        held = self.previous.rows or {}
        return [row for row in unit if self.attributes.fingerprints[row] not in held]


def begin(
    out: Path,
    attributes: StoreAttributes,
    latent_shape: tuple[int, ...],
    chunk_scans: int,
    *,
    settings: dict[str, int] | None = None,
    join: bool = False,
) -> StoreBuilder:
    """Open, or begin, the latent store that is being built; with `join`, only open it."""
    arrays = latent_arrays(latent_shape, rows_per_chunk=chunk_scans)
    return StoreBuilder(
        out,
        attributes,
        arrays,
        unit_rows=chunk_scans,
        settings=settings,
        set_aside=True,
        join=join,
    )


def fill_units(
    work: Work,
    units: Sequence[range],
    autoencoder: FrozenAutoencoder,
    device: torch.device,
    advance: Advance,
) -> None:
    """Write these units. One thread reads ahead, one writes behind, this one encodes."""
    if not units:
        return
    builder = begin(work.out, work.attributes, work.latent_shape, work.chunk_scans, join=True)
    volumes = VolumeStore(work.volumes)
    previous = [zarr.open_group(path, mode="r") for path in work.previous.stores]
    limit = max(how.batch_size for how in work.made)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[np.ndarray] = reader.submit(_read, volumes, work.fresh_rows(units[0]))
        written: Future[None] | None = None
        for i, unit in enumerate(units):
            batch = ahead.result()
            if i + 1 < len(units):
                ahead = reader.submit(_read, volumes, work.fresh_rows(units[i + 1]))
            content = _reused(work, unit, previous)
            made = work.made[unit.start : unit.stop]
            fresh = work.fresh_rows(unit)
            for how in sorted({work.made[row] for row in fresh}):
                chosen = [i for i, row in enumerate(fresh) if work.made[row] == how]
                at = [fresh[i] - unit.start for i in chosen]
                asked = min(how.batch_size, limit)
                encoder = Encoder(
                    autoencoder, batch_size=asked, precision=work.precision, device=device
                )
                with torch_threads(how.threads):
                    mean, logvar = encoder.encode(batch[chosen], advance=advance)
                content["posterior_mean"][at] = mean
                content["posterior_logvar"][at] = logvar
                for row in at:
                    made[row] = how._replace(batch_size=encoder.batch_size)
                if encoder.batch_size < asked:  # memory ended: do not try it again
                    limit = encoder.batch_size
            if written is not None:
                written.result()
            written = writer.submit(builder.write, unit, content, made=made)
        if written is not None:
            written.result()


def _read(volumes: VolumeStore, rows: list[int]) -> np.ndarray:
    """Read volumes as uint8 (scan, X, Y, Z)."""
    if not rows:
        return np.empty(0, np.uint8)
    if rows == list(range(rows[0], rows[-1] + 1)):
        return volumes.read("volume", slice(rows[0], rows[-1] + 1))
    return np.stack([volumes.read("volume", row) for row in rows])


def _reused(work: Work, unit: range, previous: list[zarr.Group]) -> dict[str, np.ndarray]:
    """Return the arrays of a unit, with the rows filled in that an earlier store holds."""
    content = {
        name: np.full((len(unit), *work.latent_shape), np.nan, np.float16)
        for name in ("posterior_mean", "posterior_logvar")
    }
    held = work.previous.rows or {}
    found = [(row - unit.start, held.get(work.attributes.fingerprints[row])) for row in unit]
    for number, group in enumerate(previous):
        pairs = [(at, there[1]) for at, there in found if there and there[0] == number]
        if not pairs:
            continue
        at, rows = (list(column) for column in zip(*pairs, strict=True))
        for name, values in content.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            values[at] = take_rows(array, rows, chunks_at_once=1)
    return content
