"""Optimiser steps of both stages against the obvious way to write them.

python -m benchmarks.studies.train_steps --out benchmarks/results/train_steps-cpu.md
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.framework.harness import machine, race, table
from pipeline.diffusion.losses import noise_loss, pdae_weight, shift_coefficient
from pipeline.diffusion.schedule import per_sample
from pipeline.models.ldae import Ldae, build_ldae
from pipeline.nets.semantic import SemanticEncoder, build_encoder
from pipeline.runtime.devices import native_bf16
from pipeline.training.step_module import ADAM_BETAS, moving_average

LATENT = (3, 16, 20, 16)
VOLUME = (64, 80, 64)
SLICES = 32
CONVNEXT_SMALL = {"channels": (96, 192, 384, 768), "depths": (3, 3, 27, 3)}
DECAY = 0.999


def demo_ldae(base_channels: int) -> Ldae:
    """Return an untrained LDAE on the latents of the cpu preset."""
    unet = {
        "in_channels": LATENT[0],
        "base_channels": base_channels,
        "multipliers": (1, 2, 3),
        "num_res_blocks": 1,
        "attention_levels": (2,),
    }
    encoder = {
        "in_channels": LATENT[0],
        "grid": LATENT[1:],
        "channels": (48, 96, 192),
        "dim": 256,
        "num_heads": 4,
    }
    torch.manual_seed(0)
    return build_ldae(
        {
            "unet": unet,
            "encoder": encoder,
            "diffusion": {},
            "prediction": "epsilon",
            "statistics": [LATENT[0], 1, 1, 1],
        }
    )


def plain_step(net: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
    """Return an fp32 step with Adam and the moving average tensor by tensor."""
    optimizer = torch.optim.Adam(net.parameters(), betas=ADAM_BETAS, foreach=False)
    average = copy.deepcopy(net)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(net))
        optimizer.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), net.parameters(), strict=True):
                a.mul_(DECAY).add_(p, alpha=1 - DECAY)

    return step


def our_step(
    net: nn.Module, loss_of: Callable[[nn.Module], Tensor], device: str
) -> Callable[[], None]:
    """Return the step as the pipeline does it: bf16 where native, fused Adam, foreach average."""
    bf16 = native_bf16(torch.device(device))
    optimizer = torch.optim.Adam(net.parameters(), betas=ADAM_BETAS, fused=True)
    average = AveragedModel(net, multi_avg_fn=moving_average(DECAY))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = loss_of(net)
        torch.autograd.backward(loss)
        optimizer.step()
        average.update_parameters(net)

    return step


def published_encoder(dim: int, *, slices: int = SLICES) -> SemanticEncoder:
    """Return ConvNeXt-Small over so many axial slices, random weights."""
    return build_encoder(kind="slices", **CONVNEXT_SMALL, num_slices=slices, dim=dim, num_heads=8)


def stage_2_step(
    ldae: Ldae,
    encoder: SemanticEncoder,
    batch_size: int,
    device: str,
    *,
    volume: tuple[int, int, int] = VOLUME,
) -> Callable[[], None]:
    """Return a stage-2 step of the pipeline with this semantic encoder, on volumes of this grid."""
    frozen = ldae.diffusion.requires_grad_(False)
    net: Any = nn.ModuleDict({"encoder": encoder, "estimator": copy.deepcopy(ldae.estimator)})
    net.to(device).train()
    z_0 = torch.randn(batch_size, *LATENT, device=device)
    t = torch.randint(0, 1000, (batch_size,), device=device)
    eps = torch.randn_like(z_0)
    x_t = frozen.schedule.add_noise(z_0, eps, t)
    c_t = per_sample(shift_coefficient(frozen.schedule, t, "posterior_mean"), z_0)
    read = z_0 if encoder.reads == "latent" else torch.rand(batch_size, 1, *volume, device=device)

    def loss_of(trained: Any) -> Tensor:
        with torch.no_grad():
            trunk = frozen.denoiser.trunk(x_t, t.float())
            noise = frozen.noise(trunk, x_t, t.float()).float()
        gradient = trained["estimator"](trunk, trained["encoder"](read)).float()
        return noise_loss(noise + c_t * gradient, eps, pdae_weight(frozen.schedule, t))

    return our_step(net, loss_of, device)


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--base-channels", type=int, default=64)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ldae = demo_ldae(options.base_channels).to(device)
    x = torch.randn(options.batch_size, *LATENT, device=device)
    t = torch.randint(0, 1000, (len(x),), device=device).float()
    eps = torch.randn_like(x)

    def stage_1(net: nn.Module) -> Tensor:
        return nn.functional.mse_loss(net(x, t).float(), eps)

    denoiser = ldae.diffusion.denoiser
    ways = {
        "eager fp32, Adam and average tensor by tensor": plain_step(
            copy.deepcopy(denoiser), stage_1
        ),
        "pipeline: bf16 where native, fused Adam, foreach average": our_step(
            copy.deepcopy(denoiser), stage_1, device
        ),
    }
    first = table("Stage-1 step", race(ways, rounds=options.rounds))

    few = max(2, options.batch_size // 4)
    encoders = {
        "slices: ConvNeXt-Small over 32 slices of 64×80": published_encoder(256),
        "latent": ldae.encoder,
    }
    semantic = table(
        f"Stage-2 step, batch {few}",
        race(
            {name: stage_2_step(ldae, e, few, device) for name, e in encoders.items()},
            rounds=min(options.rounds, 3),
        ),
    )

    y_a, y_b = torch.randn(2, len(x), 256, device=device)

    @torch.inference_mode()
    def separate() -> None:
        for y_sem in (y_a, y_b):
            ldae.model(y_sem)(x, t)

    @torch.inference_mode()
    def shared() -> None:
        ldae.noises(x, t, (y_a, y_b))

    second = table(
        "Two semantic codes decoded at one z_t",
        race({"separately": separate, "shared trunk": shared}, rounds=options.rounds),
    )
    sizes = f"latent {LATENT}, batch {options.batch_size}, base {options.base_channels}"
    about = f"{machine()}; {sizes}"
    options.out.write_text(f"{about}\n\n{first}\n{semantic}\n{second}")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
