"""Dask workers as SLURM jobs, described by a slurm.yaml."""

import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.cluster import SlurmConfig
from schemas.errors import ParamsError, in_plain_words

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Pausing a worker above its target would stall a scan that needs the memory for a moment.
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
}


def read_slurm(path: Path) -> SlurmConfig:
    """Return a validated slurm.yaml.

    Raises
    ------
    ParamsError
        If it cannot be read, or a key is unknown or of the wrong type.
    """
    try:
        return SlurmConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: no valid YAML ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        known = ", ".join(SlurmConfig.model_fields)
        raise ParamsError(
            f"{path}: {where}: {in_plain_words(first['msg'])}; known keys: {known}"
        ) from error


def slurm_cluster(config: SlurmConfig) -> Any:
    """Return a dask_jobqueue.SLURMCluster without jobs; `scale(jobs=…)` submits them.

    Raises
    ------
    ParamsError
        If dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise ParamsError(
            "SLURM needs dask-jobqueue, which is not installed; "
            "run pip install 'ldae-pipeline[slurm]'"
        ) from error
    from dask.utils import parse_bytes

    exports = [f"export {name}={shlex.quote(value)}" for name, value in ENVIRONMENT.items()]
    return SLURMCluster(
        cores=config.processes,
        processes=config.processes,
        memory=f"{parse_bytes(config.memory_per_process) * config.processes}B",
        walltime=config.walltime,
        queue=config.partition,
        account=config.account,
        interface=config.interface,
        job_name="ldae-preprocess",
        job_script_prologue=[*exports, *config.prologue],
        job_extra_directives=list(config.directives),
        log_directory=config.logs,
        scheduler_options={"dashboard_address": None},
    )
