"""Spread the units of a latent store over devices: here, one process each, or a dask cluster."""

import logging
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cached_property, lru_cache
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pipeline.encoding.batch_size import find_batch_size, find_precision
from pipeline.encoding.unit_writer import Work, fill_units
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder
from pipeline.runtime.devices import resolve_device, torch_threads
from pipeline.runtime.files import write_atomic
from pipeline.runtime.progress import Progress
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore
from pipeline.workers.dask_client import dask_client
from schemas.errors import ContractError, PipelineError

log = logging.getLogger(__name__)

UNITS_A_TASK = 4
"""Units of a cluster's task: enough to read ahead and write behind, little to lose with a worker"""
TASKS_A_WORKER = 2


class Site:
    """Where encoding runs: devices here, a process each, or the workers of a dask scheduler."""

    def __init__(
        self,
        devices: Sequence[torch.device],
        autoencoder: FrozenAutoencoder,
        volumes: VolumeStore,
        *,
        scheduler: str | None = None,
        device_name: str = "auto",
    ) -> None:
        self.devices = devices
        self.autoencoder = autoencoder
        self.volumes = volumes
        self.scheduler = scheduler
        self.device_name = device_name
        self._stack = ExitStack()

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def client(self) -> Any:
        """The scheduler's client; jobs are submitted only when there is work for them."""
        return self._stack.enter_context(dask_client(1, self.scheduler))

    def precision(self, asked: str, store: LatentStore | None) -> str:
        """Return the precision asked for, that of a store, or the one that suits the device."""
        if asked != "auto":
            return asked
        if store is not None and store.attributes.digests["autoencoder"] == self.autoencoder.digest:
            return str(store.attributes.params["encode"]["precision"])
        return str(self._ask(_precision_for, self.volumes.path.absolute()))

    def batch_size(self, asked: int | Literal["auto"]) -> int:
        """Return the batch size asked for, or the one that fits in the device's free memory."""
        if asked != "auto":
            return asked
        grid = tuple(self.volumes.array("volume").shape[1:])
        sharing = max(map(self.devices.count, self.devices))
        return int(self._ask(_batch_size_for, grid, sharing))

    def threads(self) -> int:
        """Return how many threads of the processor compute; on another device it is all one."""
        return int(self._ask(_threads_on))

    def _ask(self, question: Callable[..., Any], *more: Any) -> Any:
        """Have it answered here, or by a worker of the scheduler."""
        if self.scheduler is None:
            return question(self.autoencoder, self.devices[0], *more)
        return self.client.submit(
            _ask_worker, question, str(self.autoencoder.path.absolute()), self.device_name, *more
        ).result()


def _precision_for(autoencoder: FrozenAutoencoder, device: torch.device, volumes: Path) -> str:
    return find_precision(autoencoder, VolumeStore(volumes).read("volume", slice(0, 1)), device)


def _batch_size_for(
    autoencoder: FrozenAutoencoder, device: torch.device, grid: tuple[int, ...], sharing: int
) -> int:
    return find_batch_size(autoencoder, grid, device, sharing=sharing)


def _threads_on(_: FrozenAutoencoder, device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


def _ask_worker(question: Callable[..., Any], path: str, device_name: str, *more: Any) -> Any:
    from distributed import get_worker

    device = resolve_device(device_name)
    with torch_threads(get_worker().state.nthreads):
        return question(load_autoencoder(Path(path), device=device), device, *more)


def fill(
    work: Work,
    units: Sequence[range],
    autoencoder: FrozenAutoencoder,
    site: Site,
) -> int:
    """Write these units and return the number of scans encoded."""
    total = sum(len(work.fresh_rows(unit)) for unit in units)
    log.info("encoding %d of %d scans", total, len(work.attributes.scan_ids))
    with Progress("encode", total=total) as bar:
        if site.scheduler is not None and units:
            _fill_on_workers(work, units, site.client, site.device_name, bar)
        elif len(site.devices) == 1 or len(units) < 2:
            fill_units(work, units, autoencoder, site.devices[0], bar.add)
        else:
            _fill_in_processes(work, units, site.devices, bar)
    return total


def _fill_in_processes(
    work: Work, units: Sequence[range], devices: Sequence[torch.device], bar: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    cuts = np.linspace(0, len(units), len(devices) + 1).astype(int)
    parts = [units[a:b] for a, b in pairwise(cuts)]
    with ProcessPoolExecutor(len(devices), context, _start_process, (counter,)) as pool:
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


def _start_process(counter: Any) -> None:
    """Prepare the process of one device; it ends with the one that started it."""
    global _counter
    _counter = counter
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _fill_part(work: Work, units: Sequence[range], device_name: str) -> None:
    device = torch.device(device_name)
    autoencoder = _same_autoencoder(work, device)

    def advance(count: int) -> None:
        with _counter.get_lock():
            _counter.value += count

    fill_units(work, units, autoencoder, device, advance)


def _fill_on_workers(
    work: Work, units: Sequence[range], client: Any, device_name: str, bar: Progress
) -> None:
    from distributed import as_completed

    # A file, not an argument of each task: for 100,000 scans it has tens of megabytes.
    work_file = work.out.with_name(work.out.name + ".building") / "work.pickle"
    write_atomic(work_file, pickle.dumps(work))
    waiting = [units[i : i + UNITS_A_TASK] for i in range(0, len(units), UNITS_A_TASK)][::-1]
    running: dict[str, Sequence[range]] = {}

    def more() -> list[Any]:
        # Asked anew each time: workers of a cluster join one by one.
        started: list[Any] = []
        room = TASKS_A_WORKER * max(1, len(client.nthreads())) - len(running)
        while waiting and len(started) < room:
            part = waiting.pop()
            future = client.submit(
                fill_on_worker, str(work_file), part, device_name, pure=False, retries=2
            )
            running[future.key] = part
            started.append(future)
        return started

    futures = as_completed(more())
    for future in futures:
        part = running.pop(future.key)
        try:
            future.result()
        except PipelineError:
            raise
        except Exception as error:
            scan = work.attributes.scan_ids[part[0].start]
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ContractError(
                f"{work.out}: a worker failed on scans from {scan} on ({reason:.150}); finished"
                " chunks are kept, run the same command again"
            ) from error
        bar.add(sum(len(work.fresh_rows(unit)) for unit in part))
        futures.update(more())


def fill_on_worker(work_file: str, units: Sequence[range], device_name: str) -> None:
    """Write units in a dask worker."""
    work = _read_work(work_file, Path(work_file).stat().st_mtime_ns)
    device = resolve_device(device_name)
    fill_units(work, units, _same_autoencoder(work, device), device, lambda _: None)


@lru_cache(maxsize=1)
def _read_work(work_file: str, _: int) -> Work:
    work: Work = pickle.loads(Path(work_file).read_bytes())
    return work


def _same_autoencoder(work: Work, device: torch.device) -> FrozenAutoencoder:
    autoencoder = _load(work.autoencoder, work.autoencoder_digest, device)
    if autoencoder.digest != work.autoencoder_digest:
        raise ContractError(f"{work.autoencoder}: changed since this command started")
    return autoencoder


@lru_cache(maxsize=1)
def _load(path: Path, _digest: str, device: torch.device) -> FrozenAutoencoder:
    return load_autoencoder(path, device=device)
