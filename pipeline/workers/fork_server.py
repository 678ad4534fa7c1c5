"""A server process with the libraries of workers imported, from which workers are forked."""

import multiprocessing
import os
from multiprocessing import forkserver

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
PRELOAD = (
    "distributed",
    "pipeline.preprocessing.scan_task",
    "pipeline.imaging.preprocess_scan",
    "ants",
    "deepbet",
)
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KEPT_BYTES = 1 << 30
KEPT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def start_fork_server() -> None:
    """Start the fork server, which imports the workers' libraries once for all of them.

    Called a second time, or where processes cannot be forked, it does nothing.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    if not FORKS:
        return
    # glibc: memory of volumes is used again, not returned and zeroed for every array.
    os.environ.update(dict.fromkeys(KEPT, str(KEPT_BYTES)))
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    forkserver.ensure_running()
