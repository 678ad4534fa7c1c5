"""Rows of training: optimiser steps of both stages, and one trunk for two semantic codes."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.framework.harness import race
from benchmarks.framework.registry import Measurement, Row, compare
from benchmarks.studies.train_steps import (
    LATENT,
    SLICES,
    VOLUME,
    demo_ldae,
    our_step,
    plain_step,
    published_encoder,
    stage_2_step,
)

BATCH = 8
BASE = 64
STAGE_2_BATCH = 2
STAGE_2_BASE = 32


def _inputs(device: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(BATCH, *LATENT, device=device)
    return x, torch.randint(0, 1000, (BATCH,), device=device).float()


def measure_stage_1(folder: Path) -> Measurement:  # noqa: ARG001
    """Time an optimiser step as the pipeline does it and as is often done."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    denoiser = demo_ldae(BASE).diffusion.denoiser.to(device)
    x, t = _inputs(device)
    eps = torch.randn_like(x)

    def loss(net: nn.Module) -> Tensor:
        return nn.functional.mse_loss(net(x, t).float(), eps)

    ours, theirs = (
        "bf16 where native, fused Adam, foreach average",
        "fp32, Adam and average tensor by tensor",
    )
    timed = race(
        {
            theirs: plain_step(copy.deepcopy(denoiser), loss),
            ours: our_step(copy.deepcopy(denoiser), loss, device),
        },
        rounds=7,
    )
    return compare(timed, ours=ours, against=theirs, note=_sizes())


def measure_stage_2(folder: Path) -> Measurement:  # noqa: ARG001
    """Time an optimiser step with the latent encoder and with the published one on volumes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ldae = demo_ldae(STAGE_2_BASE).to(device)
    ways = {"slices": published_encoder(256), "latent": ldae.encoder}
    timed = race(
        {name: stage_2_step(ldae, e, STAGE_2_BATCH, device) for name, e in ways.items()}, rounds=3
    )
    note = (
        f"Latents of {LATENT}, batch {STAGE_2_BATCH}, base {STAGE_2_BASE}; ConvNeXt-Small over"
        f" {SLICES} of {VOLUME[-1]} slices of {VOLUME}, random weights."
    )
    return compare(timed, ours="latent", against="slices", note=note)


def measure_shared_trunk(folder: Path) -> Measurement:  # noqa: ARG001
    """Decode two semantic codes at one z_t, with the denoiser's features computed once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ldae = demo_ldae(BASE).to(device)
    x, t = _inputs(device)
    codes = tuple(torch.randn(2, BATCH, 256, device=device))

    @torch.inference_mode()
    def separate() -> None:
        for y_sem in codes:
            ldae.model(y_sem)(x, t)

    @torch.inference_mode()
    def shared() -> None:
        ldae.noises(x, t, codes)

    timed = race({"separately": separate, "shared": shared}, rounds=7)
    return compare(timed, ours="shared", against="separately", note=_sizes())


def _sizes() -> str:
    return f"Latents of {LATENT}, batch {BATCH}, base {BASE}."


ROWS = [
    Row(
        name="stage-1",
        what="stage-1 step",
        against="eager fp32 NCDHW, per-tensor EMA and Adam",
        measure=measure_stage_1,
        target=1.5,
        seconds=60,
    ),
    Row(
        name="stage-2",
        what="stage-2 step, latent encoder",
        against="the published ConvNeXt over slices",
        measure=measure_stage_2,
        target=2.5,
        seconds=40,
    ),
    Row(
        name="shared-trunk",
        what="two semantic codes decoded at one z_t",
        against="one after the other",
        measure=measure_shared_trunk,
        target=1.3,
        seconds=30,
    ),
]
