"""Train one model in several processes: `torchrun`, or tasks of a SLURM step.

Each process draws the whole batch of a step (latents are small and resident) and works on its own
rows, so that any number of processes and micro-batches gives the gradient of one process.
"""

import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:  # Lightning takes longer to import than torch: a finished model needs none
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes train, and which one this is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size


def processes() -> Processes:
    """Return what torchrun or srun set in the environment; alone, one process."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Processes(*(int(environment[name]) for name in names))
    # A batch script itself has the variables of its job, but not those of a step. Not asked of
    # Lightning, which advises everybody to use srun where it is installed.
    if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        size, nodes = _of_step("NUM_TASKS", "SLURM_NTASKS"), _of_step("NUM_NODES", "SLURM_NNODES")
        rank, local = int(environment["SLURM_PROCID"]), int(environment.get("SLURM_LOCALID", 0))
        return Processes(rank, size, local, max(size // nodes, 1)) if size > 1 else Processes()
    return Processes()


def _of_step(name: str, of_job: str) -> int:
    """Return a count of the SLURM step, or where it has none that of its job."""
    return int(os.environ.get(f"SLURM_STEP_{name}", os.environ.get(of_job, 1)))


def join(device: torch.device) -> torch.device:
    """Join the other processes, if there are any; return the device of this one."""
    own = processes()
    if own.size == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", own.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            os.environ |= _meeting_point(own)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=own.rank, world_size=own.size)
        atexit.register(dist.destroy_process_group)
    return device


def _meeting_point(own: Processes) -> dict[str, str]:
    """Return the variables that torchrun would have set, for the tasks of a SLURM step."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    environment = os.environ
    nodes = (
        environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    )
    # One port a job and step, above those of services.
    numbers = [int(environment.get(f"SLURM_{name}", 0)) for name in ("JOB_ID", "STEP_ID")]
    address = {
        "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(nodes),
        "MASTER_PORT": str(15000 + (numbers[0] + 7 * numbers[1]) % 10000),
    }
    return {name: environment.get(name, value) for name, value in address.items()} | {
        "RANK": str(own.rank),
        "WORLD_SIZE": str(own.size),
        "LOCAL_RANK": str(own.local_rank),
        "GROUP_RANK": str(own.rank // own.local_size),
    }


def lightnings_environment() -> "ClusterEnvironment":
    """Return how Lightning is to see the processes: never as a SLURM job of its own.

    It would restore any `hpc_ckpt_N.ckpt` that it finds, and have the job queued again on SIGUSR1.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return LightningEnvironment() if processes().size == 1 else TorchElasticEnvironment()


def wait() -> None:
    """Wait for the other processes, if there are any."""
    if dist.is_initialized():
        dist.barrier()


def mean_over_processes(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the mean of each figure over all processes, the same in each."""
    if not dist.is_initialized():
        return dict(values)
    figures = torch.tensor(list(values.values()), dtype=torch.float64).to(device)
    dist.all_reduce(figures)
    return dict(zip(values, (figures / dist.get_world_size()).tolist(), strict=True))


def any_process(asked: int, device: torch.device) -> bool:
    """Tell every process whether any of them was asked to stop."""
    return mean_over_processes({"asked": bool(asked)}, device)["asked"] > 0
