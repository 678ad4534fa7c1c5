"""A process that has imported what workers need, for workers to be forked from."""

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
    """Import the workers' libraries once for all of them, beside what goes on here.

    Called a second time, or where processes cannot be forked, it does nothing.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    if not FORKS:
        return
    # glibc: memory of volumes is used again, not given back and zeroed anew for every array.
    os.environ.update(dict.fromkeys(KEPT, str(KEPT_BYTES)))
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    forkserver.ensure_running()
