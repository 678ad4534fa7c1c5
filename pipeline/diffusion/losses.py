"""Training losses of both stages."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.schedule import Schedule, per_sample
from schemas.diffusion import Prediction, Shift


def shift_coefficient(schedule: Schedule, t: Tensor, kind: Shift) -> Float[Tensor, " B"]:
    """Return c_t in eps_hat = eps_theta + c_t G.

    `posterior_mean`: -sqrt(alpha_t) (1 - alpha_bar_{t-1}) / sqrt(1 - alpha_bar_t), the shift
    sigma_t^2 G of the posterior mean written in eps (Zhang et al. 2022). `score`:
    -sqrt(1 - alpha_bar_t), the form used when sampling.
    """
    alpha_bar = schedule.alphas_cumprod[t]
    if kind == "score":
        return -(1 - alpha_bar).sqrt()
    previous = torch.where(
        t > 0, schedule.alphas_cumprod[(t - 1).clamp(min=0)], torch.ones_like(alpha_bar)
    )
    return -(1 - schedule.betas[t]).sqrt() * (1 - previous) / (1 - alpha_bar).sqrt()


def pdae_weight(schedule: Schedule, t: Tensor, *, gamma: float = 0.1) -> Float[Tensor, " B"]:
    """Return lambda_t = SNR^gamma / (1 + SNR) (Zhang et al. 2022, eq. 13)."""
    snr = schedule.snr(t)
    return snr**gamma / (1 + snr)


def min_snr_weight(
    schedule: Schedule, t: Tensor, *, gamma: float, prediction: Prediction
) -> Float[Tensor, " B"]:
    """Return min(SNR, gamma) / SNR, or / (SNR + 1) for v (Hang et al. 2023, sec. 3.4)."""
    snr = schedule.snr(t)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def velocity(
    schedule: Schedule, x_0: Float[Tensor, "B C X Y Z"], eps: Float[Tensor, "B C X Y Z"], t: Tensor
) -> Float[Tensor, "B C X Y Z"]:
    """Return v = alpha eps - sigma x_0 (Salimans & Ho 2022)."""
    alpha_bar = per_sample(schedule.alphas_cumprod[t], x_0)
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0


def noise_loss(
    eps_pred: Float[Tensor, "B C X Y Z"],
    eps: Float[Tensor, "B C X Y Z"],
    weight: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean of weight · ‖eps − eps_pred‖² per element, in float32."""
    loss = F.mse_loss(eps_pred.float(), eps.float(), reduction="none")
    return loss.mean() if weight is None else (per_sample(weight, loss) * loss).mean()
