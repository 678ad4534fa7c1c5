"""Dask workers: local processes, a scheduler's address, or SLURM jobs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.workers.fork_server import FORKS
from pipeline.workers.slurm import read_slurm, slurm_cluster
from schemas.errors import ContractError

log = logging.getLogger(__name__)


MEMORY_LIMIT = "4GiB"
"""A worker process that uses more is restarted, and its scan given to another."""
CONNECT_TIMEOUT = "30s"
"""Longest wait for the answer of a dask scheduler."""


@contextmanager
def dask_client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Yield a dask client of local worker processes, or of the scheduler given."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None and scheduler.endswith((".yaml", ".yml")):
        config = read_slurm(Path(scheduler))
        with slurm_cluster(config) as cluster, Client(cluster) as client:
            log.debug("job script:\n%s", cluster.job_script())
            cluster.scale(jobs=config.jobs)
            log.info("%d SLURM jobs submitted, waiting for the first", config.jobs)
            yield client
        return
    if scheduler is not None:
        try:
            remote = Client(scheduler, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError) as error:
            raise ContractError(f"--scheduler {scheduler}: no dask scheduler answers") from error
        with remote as client:
            yield client
        return
    # Its status page listens on localhost alone and takes any port.
    warnings.filterwarnings("ignore", message="Port .* is already in use")
    with (
        dask.config.set(_local_config()),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=MEMORY_LIMIT,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _local_config() -> dict[str, Any]:
    """Return the dask settings of local workers: few long tasks each, no dashboard."""
    # Pausing a worker above its target would stall a scan that needs the memory for a moment.
    config: dict[str, Any] = {
        f"distributed.worker.memory.{key}": False for key in ("target", "spill", "pause")
    }
    config |= {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
    if FORKS:
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    return config
