"""Several processes that train one model: `torchrun`, or tasks of a SLURM step.

Each process draws the whole batch of a step (latents are small and resident) and works on its own
rows, so that any number of processes and micro-batches gives the gradient of one process.
"""

import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment


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
    found = os.environ
    if "TORCHELASTIC_RUN_ID" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Processes(*(int(found[name]) for name in names))
    # A batch script itself has the variables of its job, but not those of a step.
    if "SLURM_STEP_ID" in found and SLURMEnvironment.detect():
        slurm = SLURMEnvironment()
        size, nodes = slurm.world_size(), int(found.get("SLURM_NNODES", 1))
        return Processes(slurm.global_rank(), size, slurm.local_rank(), size // nodes)
    return Processes()


def join(device: torch.device) -> torch.device:
    """Meet the other processes, if there are any; return the device of this one."""
    own = processes()
    if own.size == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", own.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            slurm = SLURMEnvironment()
            os.environ["MASTER_ADDR"] = slurm.main_address
            os.environ["MASTER_PORT"] = str(slurm.main_port)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=own.rank, world_size=own.size)
        atexit.register(dist.destroy_process_group)
    return device


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
