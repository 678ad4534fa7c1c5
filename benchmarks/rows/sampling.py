"""How few network evaluations reach the error of DDIM with 100, against an exact denoiser."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.framework.registry import Measurement, Row
from pipeline.diffusion.samplers import Sampler, invert, sample
from pipeline.diffusion.schedule import Schedule, alpha_sigma

SCHEDULE = Schedule()
REFERENCE_STEPS = 800
SPREAD = 0.3


def mixture(x: Tensor, t: Tensor) -> Tensor:
    """Return the exact noise of x_0 ~ ½ N(−1, 0.3²) + ½ N(1, 0.3²), elementwise."""
    alpha, sigma = alpha_sigma(SCHEDULE.lambda_at(t[0]))
    variance = alpha**2 * SPREAD**2 + sigma**2
    weight = torch.sigmoid(2 * alpha * x / variance)
    return sigma * (x - alpha * (2 * weight - 1)) / variance


def errors(sampler: Sampler, steps: int, x_0: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return the error of the inversion, and of the round trip."""
    x_t = invert(mixture, x_0, SCHEDULE, sampler=sampler, num_inference_steps=steps)
    back = sample(mixture, x_t, SCHEDULE, sampler=sampler, num_inference_steps=steps)
    return _relative(x_t, reference), _relative(back, x_0)


def _relative(x: Tensor, truth: Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


def measure_sampling(folder: Path) -> Measurement:  # noqa: ARG001
    """Find the fewest steps whose inversion and round trip are both as good as DDIM-100's."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, (4, 3, 8, 9, 7), generator=generator) * 2.0 - 1
    x_0 = sign + SPREAD * torch.randn(sign.shape, generator=generator)
    reference = invert(mixture, x_0, SCHEDULE, sampler="dpm", num_inference_steps=REFERENCE_STEPS)
    goal = errors("ddim", 100, x_0, reference)
    numbers = {"DDIM-100 inversion": goal[0], "DDIM-100 round trip": goal[1]}
    for steps in (5, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100):
        reached = errors("dpm", steps, x_0, reference)
        numbers |= {f"{steps} steps inversion": reached[0], f"{steps} steps round trip": reached[1]}
        if all(r <= g for r, g in zip(reached, goal, strict=True)):
            break
    return Measurement(
        value=steps,
        numbers=numbers,
        note="Relative errors; the exact denoiser of a mixture of two Gaussians, reference"
        f" {REFERENCE_STEPS} steps.",
    )


ROWS = [
    Row(
        name="sampling",
        what="inversion and reconstruction at the accuracy of DDIM-100",
        against="DDIM, 100 evaluations each way",
        measure=measure_sampling,
        target=20,
        unit="evaluations",
        seconds=10,
    )
]
