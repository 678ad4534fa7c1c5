"""Preprocessing of one scan as a task, whose failure affects that scan alone."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.preprocessing.finished_scans import FinishedScans, ScanOutcome
from pipeline.runtime.digests import digest_image, digest_of
from pipeline.stores.volumes import BIAS_GRID, VolumeRow
from pipeline.workers.dask_client import dask_client
from pipeline.workers.fork_server import ONE_THREAD, start_fork_server
from schemas.errors import ScanError
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)

AHEAD = 4
"""Tasks submitted for each worker thread at a time; the others wait here."""


@dataclass(frozen=True)
class ScanTask:
    """One scan to preprocess."""

    scan_id: str
    path: str
    source_digest: str
    fingerprint: str
    note: str = ""
    """Oddities of the image from candidates.csv; a warning of its QC."""


def fingerprint(source_digest: str, params: PreprocessParams) -> str:
    """Return the digest of a source file and of all preprocessing of it."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    return digest_of([source_digest, params.content(), METHOD_VERSION])


def preprocessing_digest(params: PreprocessParams) -> str:
    """Return the digest of parameters and method of preprocessing."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    return digest_of([params.content(), METHOD_VERSION])


def tasks_of(
    manifest: pd.DataFrame, params: PreprocessParams, manifest_dir: Path
) -> list[ScanTask]:
    """Return a task for every scan of a manifest, whose paths are relative to its folder."""
    folder = manifest_dir.absolute()
    return [
        ScanTask(
            scan_id=str(row["scan_id"]),
            path=str(folder / str(row["path"])),
            source_digest=str(row["source_digest"]),
            fingerprint=fingerprint(str(row["source_digest"]), params),
        )
        for row in manifest.to_dict("records")
    ]


def run_task(task: ScanTask, params: dict[str, Any], out: str, device: str = "cpu") -> ScanOutcome:
    """Preprocess one scan into the work folder; return its outcome, never raise for bad data.

    An outcome with `transient` set (out of memory, disk) is not kept: the scan is tried again in
    the next run.
    """
    finished = FinishedScans(Path(out))
    outcome: ScanOutcome = _provenance(task)
    try:
        row, measured = _preprocess(task, PreprocessParams.model_validate(params), device)
        finished.write_scan(row, outcome | measured)
        return outcome | measured
    except ScanError as error:
        outcome |= {"error": str(error)}
        finished.write_error(outcome)
        return outcome
    except MemoryError:
        return outcome | {"error": "out of memory; use fewer --workers", "transient": True}
    except OSError as error:
        return outcome | {"error": f"{error.strerror or error}", "transient": True}
    except Exception as error:
        # One scan never stops the others.
        log.debug("%s", task.path, exc_info=True)
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        outcome |= {"error": f"preprocessing failed: {type(error).__name__}: {first}"}
        finished.write_error(outcome)
        return outcome


def _provenance(task: ScanTask) -> ScanOutcome:
    """Return ids and digest of a scan's file, and versions of the packages that process it."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    packages = ("ldae-pipeline", "antspyx", "deepbet", "nilearn", "numpy", "scipy")
    return {
        "scan_id": task.scan_id,
        "fingerprint": task.fingerprint,
        "source_digest": task.source_digest,
        "method_version": METHOD_VERSION,
        "versions": {name: _version(name) for name in packages},
    }


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _preprocess(
    task: ScanTask, params: PreprocessParams, device: str
) -> tuple[VolumeRow, ScanOutcome]:
    from pipeline.imaging.atlas.mni152 import grid_affine
    from pipeline.imaging.preprocess_scan import preprocess_scan

    path = Path(task.path)
    if not path.is_file():
        raise ScanError("file not found")
    if digest_image(path) != task.source_digest:
        raise ScanError("file changed since the manifest was made; run `pipeline cohort` again")
    scan = preprocess_scan(path, params, device=device)
    log_bias = np.zeros(BIAS_GRID.shape, np.float16)
    if scan.bias is not None:
        samples = np.linalg.inv(scan.native_to_mni) @ grid_affine(BIAS_GRID)
        log_bias = scan.bias.resampled(samples, BIAS_GRID.shape).log.astype(np.float16)
    row = VolumeRow(
        volume=scan.volume,
        native_to_mni=scan.native_to_mni,
        native_affine=scan.native_affine,
        native_shape=np.asarray(scan.native_shape, dtype=np.int32),
        intensity_range=np.asarray(scan.intensity_range, dtype=np.float64),
        tissue_levels=np.zeros(2) if scan.tissue_levels is None else np.array(scan.tissue_levels),
        log_bias=log_bias,
    )
    qc = {k: v for k, v in scan.qc.items() if k not in {"status", "reasons"}}
    return row, {"qc": qc, "notes": list(scan.notes), "timings": scan.timings}


def run_all(
    tasks: list[ScanTask],
    params: PreprocessParams,
    out: Path,
    *,
    workers: int,
    scheduler: str | None,
    device: str = "cpu",
) -> Iterator[ScanOutcome]:
    """Yield the outcome of every task as it ends, in any order.

    One worker runs in this process. More are dask worker processes of one thread each, or those of
    the `scheduler`: an address, or a slurm.yaml whose jobs are submitted and ended here. All must
    see the same files. The scan of a worker that dies, even by SIGKILL, is given to another.
    Skulls are stripped on `device`, where worker processes take turns.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    dumped = params.model_dump(mode="json")
    if scheduler is None and (workers <= 1 or len(tasks) <= 1):
        for task in tasks:
            yield run_task(task, dumped, str(out), device)
        return
    if scheduler is None:
        start_fork_server()
    with dask_client(workers, scheduler) as client:
        yield from _dispatch(client, tasks, dumped, str(out.absolute()), device)


def _dispatch(
    client: Any, tasks: list[ScanTask], params: dict[str, Any], out: str, device: str
) -> Iterator[ScanOutcome]:
    from distributed import as_completed

    waiting = iter(tasks)
    names: dict[str, ScanTask] = {}

    def submit(task: ScanTask) -> Any:
        future = client.submit(run_task, task, params, out, device, pure=False, retries=1)
        names[future.key] = task
        return future

    def more() -> list[Any]:
        # The number of workers may change: those of a cluster join one by one.
        room = AHEAD * max(1, sum(client.nthreads().values())) - len(names)
        return [submit(task) for task in islice(waiting, max(0, room))]

    running = as_completed(more())
    for future in running:
        task = names.pop(future.key)
        try:
            outcome: ScanOutcome = future.result()
        except Exception as error:
            # A worker died over this scan, and so did those that tried it again.
            log.debug("%s", task.path, exc_info=True)
            text = f"worker died on this scan ({type(error).__name__}); is memory short?"
            outcome = _provenance(task) | {"error": text, "transient": True}
        future.release()
        running.update(more())
        yield outcome
