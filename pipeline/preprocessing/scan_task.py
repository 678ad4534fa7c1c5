"""One scan to preprocess, as a task whose failure costs that scan alone."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
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
"""Tasks in flight for each worker thread; the scheduler never holds the whole cohort."""


@dataclass(frozen=True)
class Task:
    """One scan to preprocess."""

    scan_id: str
    path: str
    source_digest: str
    fingerprint: str
    note: str = ""
    """What the cohort stage says about the image; a warning of its QC."""


def fingerprint(source_digest: str, params: PreprocessParams) -> str:
    """Return the digest of a source file and of everything that is done to it."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    return digest_of([source_digest, params.content(), METHOD_VERSION])


def preprocessing_digest(params: PreprocessParams) -> str:
    """Return the digest of everything that is done to any source file."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    return digest_of([params.content(), METHOD_VERSION])


def tasks_of(manifest: pd.DataFrame, params: PreprocessParams, manifest_dir: Path) -> list[Task]:
    """Return a task for every scan of a manifest, whose paths are relative to its folder."""
    folder = manifest_dir.absolute()
    return [
        Task(
            scan_id=str(row["scan_id"]),
            path=str(folder / str(row["path"])),
            source_digest=str(row["source_digest"]),
            fingerprint=fingerprint(str(row["source_digest"]), params),
        )
        for row in manifest.to_dict("records")
    ]


def run_task(task: Task, params: dict[str, Any], out: str) -> ScanOutcome:
    """Preprocess one scan into the staging folder; returns its record, never raises for data.

    A record with `transient` set (out of memory, disk) is not kept: the scan is tried again in
    the next run.
    """
    finished = FinishedScans(Path(out))
    record: ScanOutcome = _provenance(task)
    try:
        row, more = _preprocess(task, PreprocessParams.model_validate(params))
        finished.write_scan(row, record | more)
        return record | more
    except ScanError as error:
        record |= {"error": str(error)}
        finished.write_error(record)
        return record
    except MemoryError:
        return record | {"error": "out of memory; use fewer --workers", "transient": True}
    except OSError as error:
        return record | {"error": f"{error.strerror or error}", "transient": True}
    except Exception as error:
        # One scan never stops the others.
        log.debug("%s", task.path, exc_info=True)
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        record |= {"error": f"preprocessing failed: {type(error).__name__}: {first}"}
        finished.write_error(record)
        return record


def _provenance(task: Task) -> ScanOutcome:
    """Return which file a scan came from, and the versions of all that changes its voxels."""
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    packages = ("ldae-pipeline", "antspyx", "deepbet", "nilearn", "numpy", "scipy")
    return {
        "scan_id": task.scan_id,
        "fingerprint": task.fingerprint,
        "source_digest": task.source_digest,
        "method_version": METHOD_VERSION,
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _preprocess(task: Task, params: PreprocessParams) -> tuple[VolumeRow, ScanOutcome]:
    from pipeline.imaging.preprocess_scan import preprocess_scan
    from pipeline.imaging.template import grid_affine

    path = Path(task.path)
    if not path.is_file():
        raise ScanError("file not found")
    if digest_image(path) != task.source_digest:
        raise ScanError("file changed since the manifest was made; run `pipeline cohort` again")
    scan = preprocess_scan(path, params)
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
        log_bias=log_bias,
    )
    qc = {k: v for k, v in scan.qc.items() if k not in {"status", "reasons"}}
    return row, {"qc": qc, "notes": list(scan.notes), "timings": scan.timings}


def run_all(
    tasks: list[Task], params: PreprocessParams, out: Path, *, workers: int, scheduler: str | None
) -> Iterator[ScanOutcome]:
    """Yield the record of every task as it ends, in any order.

    One worker runs in this process; more are dask worker processes of one thread each, or those
    of the `scheduler` given: an address, or a slurm.yaml whose jobs are submitted and ended here.
    All must see the same files. A worker that dies, even by SIGKILL,
    costs no more than its scan's time: the scan is given to another.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    dumped = params.model_dump(mode="json")
    if scheduler is None and (workers <= 1 or len(tasks) <= 1):
        for task in tasks:
            yield run_task(task, dumped, str(out))
        return
    if scheduler is None:
        start_fork_server()
    with dask_client(workers, scheduler) as client:
        yield from _dispatch(client, tasks, dumped, str(out.absolute()))


def _dispatch(
    client: Any, tasks: list[Task], params: dict[str, Any], out: str
) -> Iterator[ScanOutcome]:
    from distributed import as_completed

    waiting = iter(tasks)
    names: dict[str, Task] = {}

    def submit(task: Task) -> Any:
        future = client.submit(run_task, task, params, out, pure=False, retries=1)
        names[future.key] = task
        return future

    def more() -> list[Any]:
        # Asked anew each time: workers of a cluster join one by one.
        room = AHEAD * max(1, sum(client.nthreads().values())) - len(names)
        return [submit(task) for task in islice(waiting, max(0, room))]

    running = as_completed(more())
    for future in running:
        task = names.pop(future.key)
        try:
            record: ScanOutcome = future.result()
        except Exception as error:
            # A worker died over this scan, and so did those that tried it again.
            log.debug("%s", task.path, exc_info=True)
            text = f"worker died on this scan ({type(error).__name__}); is memory short?"
            record = _provenance(task) | {"error": text, "transient": True}
        future.release()
        running.update(more())
        yield record
