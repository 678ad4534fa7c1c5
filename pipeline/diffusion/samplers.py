"""Deterministic samplers and their inversions, as free functions over model(x_t, t) → eps.

One list of nodes, walked down to sample and up to invert. `ddim` takes uniform t; `dpm` is the
exponential multistep method of second order in eps (DPM-Solver-2M; Lu et al. 2022) and `dpm_data`
its data form (DPM-Solver++(2M)), both on a uniform log-SNR grid, where they reach DDIM-100's
accuracy with 20 evaluations. `dpm3` goes through the last three slopes, started with one and two,
on a grid that leaves fewer nodes to the nearly clean end.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.schedule import Schedule, alpha_sigma

Model = Callable[[Tensor, Tensor], Tensor]
"""model(x_t (B C X Y Z), t (B,) possibly fractional) → predicted noise."""

Sampler = Literal["ddim", "dpm", "dpm_data", "dpm3"]

LOG_SNR_SHARE = 0.7
"""Of a node's place on the grid of `dpm3`: so much of it by log-SNR, the rest by t."""


def sample(
    model: Model,
    x_T: Float[Tensor, "B C X Y Z"],
    schedule: Schedule,
    *,
    sampler: Sampler,
    num_inference_steps: int,
    clip_x0: float | None = None,
) -> Float[Tensor, "B C X Y Z"]:
    """Return x_0 of the deterministic flow that starts at x_T: one evaluation of model a step."""
    nodes = _nodes(schedule, sampler, num_inference_steps).flip(0)
    return _integrate(model, x_T, schedule, nodes, sampler, clip_x0)


def invert(
    model: Model,
    x_0: Float[Tensor, "B C X Y Z"],
    schedule: Schedule,
    *,
    sampler: Sampler,
    num_inference_steps: int,
    clip_x0: float | None = None,
) -> Float[Tensor, "B C X Y Z"]:
    """Return x_T, the noise that the deterministic flow maps back to x_0.

    Song et al. 2021, sec. 4.3, integrated from t = 0 to T − 1; the clean latent is node 0. A good
    round trip alone does not prove a good inversion: check that x_T is close to N(0, 1).
    `clip_x0` bounds the predicted x_0; None, the default, suits latents.
    """
    nodes = _nodes(schedule, sampler, num_inference_steps)
    return _integrate(model, x_0, schedule, nodes, sampler, clip_x0)


def _nodes(schedule: Schedule, sampler: Sampler, steps: int) -> Float[Tensor, " S+1"]:
    """Return steps + 1 timesteps from 0 to T − 1.

    Raises
    ------
    ValueError
        If steps exceed the training timesteps.
    """
    last = schedule.num_train_timesteps - 1
    if not 1 <= steps <= last:
        raise ValueError(f"num_inference_steps {steps}: expected 1 to {last}")
    device = schedule.half_log_snr.device
    if sampler == "ddim":
        return (
            torch.linspace(0, last, steps + 1, dtype=torch.float64, device=device).floor().float()
        )
    if sampler == "dpm3":
        return _mixed_nodes(schedule, steps)
    lambdas = torch.linspace(
        float(schedule.half_log_snr[0]), float(schedule.half_log_snr[-1]), steps + 1, device=device
    )
    return schedule.t_at(lambdas).clamp(0, last)


def _mixed_nodes(schedule: Schedule, steps: int) -> Float[Tensor, " S+1"]:
    """Return steps + 1 timesteps; see LOG_SNR_SHARE."""
    log_snr = schedule.half_log_snr.double()
    t = torch.arange(len(log_snr), dtype=torch.float64, device=log_snr.device)
    way = LOG_SNR_SHARE * (log_snr[0] - log_snr) / (log_snr[0] - log_snr[-1])
    way += (1 - LOG_SNR_SHARE) * t / t[-1]
    wanted = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=log_snr.device)
    i = torch.searchsorted(way, wanted).clamp(1, len(way) - 1)
    nodes = i - 1 + (wanted - way[i - 1]) / (way[i] - way[i - 1])
    return nodes.clamp(0, float(t[-1])).to(schedule.half_log_snr.dtype)


def _through_slopes(slopes: list[tuple[Tensor, float]], end: float) -> Float[Tensor, "B C X Y Z"]:
    """Return the integral of exp(end - l) times the polynomial through slopes.

    `slopes` are the last one to three, each with its log-SNR l, newest first, where it begins.
    """
    newest, begin = slopes[0]
    step = end - begin
    moments = [math.expm1(step)]
    for power in (1, 2):
        moments.append(power * moments[-1] - step**power)
    total = moments[0] * newest
    if len(slopes) > 1:
        second, at = slopes[1]
        first_difference = (newest - second) / (begin - at)
        total = total + moments[1] * first_difference
    if len(slopes) > 2:
        third, further = slopes[2]
        before = (second - third) / (at - further)
        curve = (first_difference - before) / (begin - further)
        total = total + (moments[2] + (begin - at) * moments[1]) * curve
    return total


@torch.no_grad()
def _integrate(
    model: Model,
    x: Tensor,
    schedule: Schedule,
    nodes: Tensor,
    sampler: Sampler,
    clip_x0: float | None,
) -> Tensor:
    lambdas = schedule.lambda_at(nodes)
    previous: tuple[Tensor, Tensor] | None = None
    slopes: list[tuple[Tensor, float]] = []
    for here, there in zip(range(len(nodes) - 1), range(1, len(nodes)), strict=True):
        alpha, sigma = alpha_sigma(lambdas[here])
        alpha_next, sigma_next = alpha_sigma(lambdas[there])
        step = lambdas[there] - lambdas[here]
        eps = model(x, nodes[here].expand(len(x))).to(x.dtype)
        if clip_x0 is not None:
            x0 = ((x - sigma * eps) / alpha).clamp(-clip_x0, clip_x0)
            eps = (x - alpha * x0) / sigma
        slope = (x - sigma * eps) / alpha if sampler == "dpm_data" else eps
        used = slope
        if previous is not None and sampler != "ddim":
            used = slope + 0.5 * step / previous[1] * (slope - previous[0])
        if sampler == "dpm3":
            slopes = [(eps, float(lambdas[here])), *slopes[:2]]
            end = float(lambdas[there])
            x = alpha_next / alpha * x - sigma_next * _through_slopes(slopes, end)
        elif sampler == "dpm_data":
            x = sigma_next / sigma * x - alpha_next * torch.expm1(-step) * used
        else:
            x = alpha_next / alpha * x - sigma_next * torch.expm1(step) * used
        previous = (slope, step)
    return x
