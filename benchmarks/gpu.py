"""Rows of the paper preset, which need a GPU: share of the measured matmul rate, peak memory."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import race
from benchmarks.registry import Measurement, Row
from benchmarks.train_steps import our_step
from pipeline.ldae import unet_config
from pipeline.nets.denoiser import Denoiser, UnetConfig
from pipeline.stores.latents import Latents
from stages.params_file import load_params
from stages.scaffold import preset_file

LATENT = (3, 16, 20, 16)
BATCH = 64
SIDE = 8192
"""Rows and columns of the matrices whose product gives the rate to compare with."""


def matmul_rate(device: str, side: int = SIDE) -> float:
    """Return the bf16 rate (FLOP/s) of one large matrix product, the fastest of ten."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    (timed,) = race({"matmul": lambda: a @ a}, rounds=10, warmup=3)
    return 2 * side**3 / min(timed.seconds)


def measure_stage_1(folder: Path) -> Measurement:  # noqa: ARG001
    """Time a stage-1 step of the paper preset and count its operations."""
    params = load_params(preset_file("paper"), [])
    unet = unet_config(params.train_ldm.denoiser, in_channels=LATENT[0])
    return step_share(Denoiser(UnetConfig(**unet)), "cuda", batch=BATCH, side=SIDE)


def step_share(denoiser: Denoiser, device: str, *, batch: int, side: int) -> Measurement:
    """Return which share (%) of the matmul rate an optimiser step reaches, data included."""
    denoiser.to(device)
    ids = [str(i) for i in range(4 * batch)]
    mean = torch.randn(len(ids), *LATENT).half()
    latents = Latents(ids, mean, torch.full_like(mean, -4)).to(torch.device(device))
    generator = torch.Generator(device).manual_seed(0)

    def batch_of() -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.randint(0, len(ids), (batch,))
        return latents.draw(index, generator=generator), torch.rand(batch, device=device) * 999

    def loss(net: nn.Module) -> torch.Tensor:
        x, t = batch_of()
        return nn.functional.mse_loss(net(x, t).float(), x)

    step = our_step(denoiser, loss, device)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timed = race({"step": step, "its batch alone": batch_of}, rounds=10)
    rate = matmul_rate(device, side)
    flop = counter.get_total_flops()
    numbers = {
        "TFLOP a step": flop / 1e12,
        "measured matmul rate, TFLOP/s": rate / 1e12,
        "share of the step that makes the batch, %": 100 * timed[1].median / timed[0].median,
    }
    if device == "cuda":
        numbers["peak memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
    return Measurement(
        value=100 * flop / timed[0].median / rate,
        rounds={way.name: way.seconds for way in timed},
        numbers=numbers,
        note=f"Batch {batch}, latents of {LATENT}, bf16 autocast.",
    )


ROWS = [
    Row(
        name="paper-stage-1",
        what="stage-1 step of the paper preset, share of the bf16 matmul rate",
        against="one large matrix product",
        measure=measure_stage_1,
        target=40,
        unit="%",
        gpu_only=True,
    )
]
