"""Fill the units of a latent store: read ahead, encode, write behind; on one device or several."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.compute import Progress
from pipeline.frozen import FrozenAutoencoder, load_autoencoder
from pipeline.precompute.encoder import Encoder
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import LatentStore, latent_arrays
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Previous:
    """Rows of an earlier store that are still good: scan fingerprint → row."""

    store: LatentStore | None
    rows: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that decides what the units hold; it travels to the processes of the devices."""

    volumes: Path
    autoencoder: Path
    autoencoder_digest: str
    out: Path
    attributes: StoreAttributes
    latent_shape: tuple[int, ...]
    chunk_scans: int
    precision: str
    previous: Path | None
    previous_rows: dict[str, int]

    def builder(self) -> StoreBuilder:
        """Open, or begin, the store that is being built."""
        arrays = latent_arrays(self.latent_shape, rows_per_chunk=self.chunk_scans)
        return StoreBuilder(self.out, self.attributes, arrays, unit_rows=self.chunk_scans)

    def fresh_rows(self, unit: range) -> list[int]:
        """Return the rows of a unit that no earlier store holds."""
        fingerprints = self.attributes.fingerprints
        return [row for row in unit if fingerprints[row] not in self.previous_rows]


def fill(
    work: Work,
    batch_sizes: dict[range, int],
    autoencoder: FrozenAutoencoder,
    devices: Sequence[torch.device],
) -> int:
    """Write every unit of `batch_sizes` and return the number of scans encoded.

    With several devices, each has a process of its own and a run of units that no other touches.
    """
    total = sum(len(work.fresh_rows(unit)) for unit in batch_sizes)
    log.info("encoding %d of %d scans", total, len(work.attributes.scan_ids))
    with Progress("encode", total=total) as bar:
        if len(devices) == 1 or len(batch_sizes) < 2:
            _fill_units(work, batch_sizes, autoencoder, devices[0], bar.add)
        else:
            _fill_in_processes(work, batch_sizes, devices, bar)
    return total


def _fill_units(
    work: Work,
    batch_sizes: dict[range, int],
    autoencoder: FrozenAutoencoder,
    device: torch.device,
    advance: Advance,
) -> None:
    units = list(batch_sizes)
    if not units:
        return
    builder, volumes = work.builder(), VolumeStore(work.volumes)
    previous = Previous(
        LatentStore(work.previous) if work.previous else None, dict(work.previous_rows)
    )
    limit = max(batch_sizes.values())
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[np.ndarray] = reader.submit(_read, volumes, work.fresh_rows(units[0]))
        written: Future[None] | None = None
        for i, unit in enumerate(units):
            batch = ahead.result()
            if i + 1 < len(units):
                ahead = reader.submit(_read, volumes, work.fresh_rows(units[i + 1]))
            content = _reused(builder, unit, previous)
            encoder = Encoder(
                autoencoder,
                batch_size=min(batch_sizes[unit], limit),
                precision=work.precision,
                device=device,
            )
            if len(batch):
                at = [row - unit.start for row in work.fresh_rows(unit)]
                mean, logvar = encoder.encode(batch, advance=advance)
                content["posterior_mean"][at] = mean
                content["posterior_logvar"][at] = logvar
                if encoder.batch_size < batch_sizes[unit]:
                    limit = encoder.batch_size
            if written is not None:
                written.result()
            written = writer.submit(builder.write, unit, content, batch_size=encoder.batch_size)
        if written is not None:
            written.result()


def _read(volumes: VolumeStore, rows: list[int]) -> np.ndarray:
    """Read volumes as uint8 (scan, X, Y, Z)."""
    if not rows:
        return np.empty(0, np.uint8)
    if rows == list(range(rows[0], rows[-1] + 1)):
        return volumes.read("volume", slice(rows[0], rows[-1] + 1))
    return np.stack([volumes.read("volume", row) for row in rows])


def _reused(builder: StoreBuilder, unit: range, previous: Previous) -> dict[str, np.ndarray]:
    """Return the arrays of a unit, with the rows filled in that an earlier store holds."""
    content = {
        name: np.full((len(unit), *array.shape[1:]), np.nan, np.float16)
        for name, array in builder.group.arrays()
    }
    at, old = [], []
    for row in unit:
        there = previous.rows.get(builder.attributes.fingerprints[row])
        if there is not None:
            at.append(row - unit.start)
            old.append(there)
    if at and previous.store is not None:
        first = min(old)
        for name, values in content.items():
            run = previous.store.read(name, slice(first, max(old) + 1))
            values[at] = run[[row - first for row in old]]
    return content


def _fill_in_processes(
    work: Work, batch_sizes: dict[range, int], devices: Sequence[torch.device], bar: Progress
) -> None:
    work.builder()  # begins the store, so that the processes only join it
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    units = list(batch_sizes)
    cuts = np.linspace(0, len(units), len(devices) + 1).astype(int)
    parts = [{u: batch_sizes[u] for u in units[a:b]} for a, b in pairwise(cuts)]
    with ProcessPoolExecutor(
        len(devices), context, _start_process, (counter, torch.get_num_threads())
    ) as pool:
        running = [
            pool.submit(_fill_part, work, part, str(device))
            for part, device in zip(parts, devices, strict=True)
        ]
        try:
            while not all(future.done() for future in running):
                time.sleep(0.2)
                bar.add(counter.value - bar.done)
            for future in running:
                future.result()
        except BrokenProcessPool as error:
            raise ContractError(
                f"{work.out}: the process of a device was killed; finished chunks are kept, run the"
                " same command again"
            ) from error


_counter: Any = None


def _start_process(counter: Any, threads: int) -> None:
    """Prepare the process of one device; it ends with the one that started it."""
    global _counter
    _counter = counter
    torch.set_num_threads(threads)  # another number may change the last bits
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _fill_part(work: Work, batch_sizes: dict[range, int], device_name: str) -> None:
    device = torch.device(device_name)
    autoencoder = load_autoencoder(work.autoencoder, device=device)
    if autoencoder.digest != work.autoencoder_digest:
        raise ContractError(f"{work.autoencoder}: changed since this command started")

    def advance(count: int) -> None:
        with _counter.get_lock():
            _counter.value += count

    _fill_units(work, batch_sizes, autoencoder, device, advance)
