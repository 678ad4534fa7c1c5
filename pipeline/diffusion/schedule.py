"""The forward process q(x_t | x_0) and everything that follows from its betas."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Schedule(nn.Module):
    """Discrete variance-preserving schedule (Ho et al. 2020), read at fractional t as well.

    All coefficients are computed in float64 and kept as float32 buffers that no cast touches:
    use them under autocast without harm.
    """

    alphas_cumprod: Tensor
    betas: Tensor

    def __init__(
        self,
        *,
        num_train_timesteps: int = 1000,
        beta_schedule: Literal["linear", "cosine"] = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
    ) -> None:
        super().__init__()
        self.num_train_timesteps = num_train_timesteps
        if beta_schedule == "linear":
            betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
        else:
            betas = _cosine_betas(num_train_timesteps)
        self.register_buffer("betas", betas.float(), persistent=False)
        cumulative = torch.cumprod(1 - betas, 0).float()
        self.register_buffer("alphas_cumprod", cumulative, persistent=False)
        log_snr = torch.log(torch.cumprod(1 - betas, 0)) - torch.log1p(-torch.cumprod(1 - betas, 0))
        self.register_buffer("half_log_snr", (0.5 * log_snr).float(), persistent=False)

    half_log_snr: Tensor

    def snr(self, t: Tensor) -> Tensor:
        """Return alpha_bar / (1 - alpha_bar) at integer t."""
        alpha_bar = self.alphas_cumprod[t]
        return alpha_bar / (1 - alpha_bar)

    def lambda_at(self, t: Float[Tensor, " *B"]) -> Float[Tensor, " *B"]:
        """Return lambda = log(alpha / sigma) at fractional t, linear between integers."""
        low = t.floor().long().clamp(0, self.num_train_timesteps - 2)
        part = (t - low).to(self.half_log_snr.dtype)
        return torch.lerp(self.half_log_snr[low], self.half_log_snr[low + 1], part)

    def t_at(self, lambdas: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
        """Return the fractional t of each lambda; the inverse of `lambda_at`."""
        ascending = self.half_log_snr.flip(0).contiguous()
        i = torch.searchsorted(ascending, lambdas.contiguous()).clamp(1, len(ascending) - 1)
        part = (lambdas - ascending[i - 1]) / (ascending[i] - ascending[i - 1])
        return len(ascending) - 1 - (i - 1 + part)

    def add_noise(
        self,
        x_0: Float[Tensor, "B C X Y Z"],
        eps: Float[Tensor, "B C X Y Z"],
        t: Tensor,
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps (Ho et al. 2020, eq. 4)."""
        alpha_bar = per_sample(self.alphas_cumprod[t], x_0)
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps


def alpha_sigma(lambdas: Tensor) -> tuple[Tensor, Tensor]:
    """Return (alpha, sigma) = sqrt(alpha_bar), sqrt(1 - alpha_bar) at lambda."""
    return torch.sigmoid(2 * lambdas).sqrt(), torch.sigmoid(-2 * lambdas).sqrt()


def per_sample(values: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """Return one number a sample, shaped to broadcast against `like`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _cosine_betas(num_train_timesteps: int, *, offset: float = 0.008) -> Tensor:
    """Return the betas of Nichol & Dhariwal 2021, eq. 17."""
    t = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
