"""One micro-batch of an autoencoder preset's step with every term, and one encode: time, memory.

    python -m benchmarks.studies.autoencoder_step --preset paper [--no-checkpointing] [--set …]

Data and perceptual weights are random: neither time nor memory depends on their values.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from benchmarks.framework.harness import machine
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.lpips import Lpips
from pipeline.runtime.devices import takes_bf16
from pipeline.stores.volumes import VolumeStore
from pipeline.training.autoencoder_module import AutoencoderModule
from schemas.autoencoder import TrainAeParams
from stages.params_file import load_params


class RandomVolumes:
    """Stands in for a volume store."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def read(self, _name: str, row: int) -> np.ndarray:
        """Return a uint8 volume (X, Y, Z)."""
        return np.random.default_rng(row).integers(0, 255, self.shape, dtype=np.uint8)


def peak_gib(device: torch.device) -> float:
    """Return the most memory held so far (GiB): of the GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step(module: AutoencoderModule, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Run a micro-batch and an optimiser step, past the adversarial warm-up."""
    params = module.params
    bf16 = takes_bf16(params.precision, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        losses = module.compute_losses(params.adversarial.warmup_steps)
    losses["loss"].backward()
    for group in module.parameter_groups():
        nn.utils.clip_grad_norm_(group["params"], params.grad_clip)
    optimizer.step()
    shown = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
    print(f"losses: {shown}", flush=True)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    params = load_params(Path("params") / f"{arguments.preset}.yaml", arguments.set)
    train, shape = params.train_ae, params.preprocess.grid.shape
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "lpips.pt"
        torch.save(Lpips().state_dict(), weights)
        perceptual = train.perceptual.model_copy(update={"weights": weights})
        checkpointing = train.checkpointing and not arguments.no_checkpointing
        train = train.model_copy(update={"perceptual": perceptual, "checkpointing": checkpointing})
        module = build(train, shape).to(device)
    module.on_fit_start()
    optimizer = torch.optim.Adam(module.parameter_groups(), lr=train.lr, fused=True)
    print(f"{machine()}, {torch.get_num_threads()} threads; grid {shape}, {train.precision},")
    scans = train.batch_size // train.accumulate
    print(f"{scans} scans a micro-batch, checkpointing {checkpointing}", flush=True)
    started = time.perf_counter()
    step(module, optimizer, device)
    print(f"step: {time.perf_counter() - started:.1f} s, peak {peak_gib(device):.2f} GiB")
    started = time.perf_counter()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        x = torch.rand(1, 1, *shape, device=device)
        print(f"latent {tuple(module.averaged.encode(x)[0].shape)[1:]}")
    print(f"encode: {time.perf_counter() - started:.1f} s, peak {peak_gib(device):.2f} GiB")


def build(train: TrainAeParams, shape: tuple[int, ...]) -> AutoencoderModule:
    """Return the training module of a preset over random volumes."""
    net = Autoencoder(
        channels=train.channels,
        latent_channels=train.latent_channels,
        num_res_blocks=train.num_res_blocks,
        norm_groups=train.norm_groups,
        patch=train.patch,
        checkpointing=train.checkpointing,
    )
    volumes = cast(VolumeStore, RandomVolumes(shape))
    return AutoencoderModule(net, train, volumes, list(range(train.batch_size)), [])


if __name__ == "__main__":
    main()
