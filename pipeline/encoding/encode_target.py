"""Targets of encoding: one device, several with a process each, or workers of a cluster."""

import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch

from pipeline.encoding.device_settings import choose_settings
from pipeline.encoding.latent_plan import LatentPlan
from pipeline.encoding.unit_writer import write_units
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder
from pipeline.runtime.devices import resolve_device, torch_threads
from pipeline.runtime.files import write_atomic
from pipeline.runtime.progress import Progress
from pipeline.stores.build_units import EncodeSettings
from pipeline.stores.location import absolute
from pipeline.stores.volumes import VolumeStore
from pipeline.workers.dask_client import dask_client
from schemas.errors import ContractError, PipelineError
from schemas.params import EncodeParams

log = logging.getLogger(__name__)

UNITS_A_TASK = 4
"""Units in a task of a cluster: enough to overlap reading, encoding and writing."""
TASKS_A_WORKER = 2
PROGRESS_S = 0.2
"""Time (s) between updates of the progress of other processes."""


@dataclass
class EncodeTarget:
    """Devices of this machine, or workers of a dask scheduler; a context manager."""

    devices: Sequence[torch.device]
    autoencoder: FrozenAutoencoder
    scheduler: str | None = None
    device_name: str = "auto"
    """Name of the device that each worker of a scheduler resolves for itself."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "EncodeTarget":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def client(self) -> Any:
        """The scheduler's client; SLURM jobs are submitted when it is first used."""
        return self._stack.enter_context(dask_client(1, self.scheduler))

    def choose_settings(
        self, volumes: VolumeStore, params: EncodeParams
    ) -> tuple[str, EncodeSettings]:
        """Return precision, batch size and threads: those of `params`, else those chosen there."""
        if self.scheduler is None:
            sharing = max(map(self.devices.count, self.devices))
            return choose_settings(
                self.autoencoder, self.devices[0], volumes, params, sharing=sharing
            )
        chosen: tuple[str, EncodeSettings] = self.client.submit(
            _choose_on_worker,
            self.autoencoder.path.absolute(),
            self.device_name,
            absolute(volumes.path),
            params,
        ).result()
        return chosen

    def write_units(self, plan: LatentPlan, units: Sequence[range]) -> int:
        """Encode and write these units of the store; return the number of scans encoded.

        Raises
        ------
        ContractError
            If a process or worker is lost before its work is done; finished units are kept.
        """
        total = sum(len(plan.rows_to_encode(unit)) for unit in units)
        log.info("encoding %d of %d scans", total, len(plan.attributes.scan_ids))
        with Progress("encode", total=total) as bar:
            if self.scheduler is not None and units:
                _write_on_workers(plan, units, self.client, self.device_name, bar)
            elif len(self.devices) == 1 or len(units) < 2:
                write_units(plan, units, self.autoencoder, self.devices[0], bar.add)
            else:
                _write_in_processes(plan, units, self.devices, bar)
        return total


def _choose_on_worker(
    autoencoder: Path, device_name: str, volumes: Path, params: EncodeParams
) -> tuple[str, EncodeSettings]:
    from distributed import get_worker

    device = resolve_device(device_name)
    with torch_threads(get_worker().state.nthreads):
        loaded = load_autoencoder(autoencoder, device=device)
        return choose_settings(loaded, device, VolumeStore(volumes), params)


def _write_in_processes(
    plan: LatentPlan, units: Sequence[range], devices: Sequence[torch.device], bar: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    cuts = np.linspace(0, len(units), len(devices) + 1).astype(int)
    parts = [units[a:b] for a, b in pairwise(cuts)]
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(len(devices), context, _end_with_parent) as pool,
    ):
        encoded = manager.Queue()
        running = [
            pool.submit(_write_part, plan, part, str(device), encoded)
            for part, device in zip(parts, devices, strict=True)
        ]
        try:
            while not all(future.done() for future in running) or not encoded.empty():
                try:
                    bar.add(encoded.get(timeout=PROGRESS_S))
                except Empty:
                    continue
            for future in running:
                future.result()
        except BrokenProcessPool as error:
            raise ContractError(
                f"{plan.latents}: the process of a device was killed; finished chunks are kept, run"
                " the same command again"
            ) from error


def _end_with_parent() -> None:
    """End the process of a device when the process that started it ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_part(plan: LatentPlan, units: Sequence[range], device_name: str, encoded: Any) -> None:
    device = torch.device(device_name)
    write_units(plan, units, _load_planned(plan, device), device, encoded.put)


def _write_on_workers(
    plan: LatentPlan, units: Sequence[range], client: Any, device_name: str, bar: Progress
) -> None:
    from distributed import as_completed

    # Each worker reads the plan once from a file: for 100,000 scans it has tens of megabytes.
    file = plan.latents.with_name(plan.latents.name + ".building") / "latent_plan.json"
    write_atomic(file, plan.model_dump_json())
    shared_plan = client.submit(_read_plan, str(file), pure=False)
    waiting = [units[i : i + UNITS_A_TASK] for i in range(0, len(units), UNITS_A_TASK)][::-1]
    running: dict[str, Sequence[range]] = {}

    def more() -> list[Any]:
        # The number of workers may change: those of a cluster join one by one.
        started: list[Any] = []
        room = TASKS_A_WORKER * max(1, len(client.nthreads())) - len(running)
        while waiting and len(started) < room:
            part = waiting.pop()
            future = client.submit(
                _write_on_worker, shared_plan, part, device_name, pure=False, retries=2
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
            scan = plan.attributes.scan_ids[part[0].start]
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ContractError(
                f"{plan.latents}: a worker failed on scans from {scan} on ({reason:.150}); finished"
                " chunks are kept, run the same command again"
            ) from error
        bar.add(sum(len(plan.rows_to_encode(unit)) for unit in part))
        futures.update(more())


def _read_plan(file: str) -> LatentPlan:
    return LatentPlan.model_validate_json(Path(file).read_text())


def _write_on_worker(plan: LatentPlan, units: Sequence[range], device_name: str) -> None:
    device = resolve_device(device_name)
    write_units(plan, units, _load_planned(plan, device), device, lambda _: None)


def _load_planned(plan: LatentPlan, device: torch.device) -> FrozenAutoencoder:
    autoencoder = _load(plan.autoencoder, plan.autoencoder_digest, device)
    if autoencoder.digest != plan.autoencoder_digest:
        raise ContractError(f"{plan.autoencoder}: changed since this command started")
    return autoencoder


@lru_cache(maxsize=1)
def _load(path: Path, _digest: str, device: torch.device) -> FrozenAutoencoder:
    return load_autoencoder(path, device=device)
