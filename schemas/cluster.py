"""Settings of a SLURM cluster, read from slurm.yaml."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class SlurmConfig(BaseModel):
    """Jobs of dask workers; every worker preprocesses one scan at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: Annotated[int, Field(gt=0)] = 4
    """SLURM jobs to submit."""
    processes: Annotated[int, Field(gt=0)] = 8
    """Worker processes a job, of one thread and one CPU each."""
    memory_per_process: str = "4GiB"
    """Memory of a worker; one that goes beyond is restarted, and its scan tried again."""
    walltime: str = "04:00:00"
    """Time limit of a job (hours:minutes:seconds)."""
    partition: str | None = None
    """`sbatch -p`."""
    account: str | None = None
    """`sbatch -A`."""
    interface: str | None = None
    """Network interface that compute nodes reach the submitting node by, for example ib0."""
    prologue: list[str] = []
    """Shell lines before the workers start, for example `module load …`."""
    directives: list[str] = []
    """Further `#SBATCH` options."""
    logs: str = "slurm-logs"
    """Folder for the output of the jobs."""
