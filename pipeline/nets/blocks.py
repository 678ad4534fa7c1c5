"""Blocks shared by the denoiser, the gradient estimator and the semantic encoder."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.cpu_kernels import Stride, convolve, convolve_repeated


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with 32 groups, or the largest divisor of the channels below that."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zero_init(module: nn.Conv3d | nn.Linear) -> nn.Conv3d | nn.Linear:
    """Set a layer's weights and bias to zero, so that its block starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def timestep_embedding(t: Float[Tensor, " B"], dim: int) -> Float[Tensor, "B dim"]:
    """Return sinusoidal features of (possibly fractional) timesteps."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conv3d(nn.Conv3d):
    """Convolution that is right and fast on the CPU too."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own argument name)
        """Return the convolution."""
        return super().forward(input) if input.device.type != "cpu" else convolve(self, input)


class Resample(nn.Module):
    """Average pooling by `stride` (down, an odd rest by itself) or nearest repetition (up)."""

    def __init__(self, direction: Literal["down", "up"], stride: Stride) -> None:
        super().__init__()
        self.direction = direction
        self.stride = stride

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C x y z"]:
        """Return x on the other grid."""
        if self.direction == "down":
            return F.avg_pool3d(x, self.stride, ceil_mode=True)
        return F.interpolate(x, scale_factor=tuple(map(float, self.stride)), mode="nearest")


class ResBlock(nn.Module):
    """Residual block, conditioned on time and, where asked for, on y_sem.

    h ← (1 + s_y) · (GN(h) (1 + s_t) + b_t) + b_y, the order of Zhang et al. 2022 (PDAE).
    Without a time embedding (`emb_dim` None) it is a plain residual block. `resample` changes the
    grid of both paths before the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_dim: int | None = None,
        semantic: bool = False,
        dropout: float = 0.0,
        resample: Resample | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample or nn.Identity()
        self.norm1 = group_norm(in_channels)
        self.conv1 = Conv3d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(emb_dim, 2 * out_channels) if emb_dim else None
        self.semantic = nn.Linear(emb_dim, 2 * out_channels) if emb_dim and semantic else None
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(Conv3d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else Conv3d(in_channels, out_channels, 1)

    def forward(
        self,
        x: Float[Tensor, "B C X Y Z"],
        emb: Float[Tensor, "B E"] | None = None,
        y_emb: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B D x y z"]:
        """Return the block's output, on another grid where `resample` is set."""
        h = self.norm2(self._first_conv(F.silu(self.norm1(x))))
        if self.time is not None:
            assert emb is not None
            scale, shift = self.time(F.silu(emb))[:, :, None, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        if self.semantic is not None:
            assert y_emb is not None
            scale, shift = self.semantic(F.silu(y_emb))[:, :, None, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = self.skip(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))
        return out

    def _first_conv(self, h: Tensor) -> Tensor:
        resample = self.resample
        # Not measured on a GPU.
        if isinstance(resample, Resample) and resample.direction == "up" and not h.is_cuda:
            return convolve_repeated(self.conv1, h, resample.stride)
        out: Tensor = self.conv1(resample(h))
        return out


class SelfAttention(nn.Module):
    """Self-attention over all positions, residual, zero-initialised.

    With several heads the outputs of `qkv` are grouped by head; q, k and v lie side by side in one.
    """

    def __init__(self, channels: int, *, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return x plus what attention adds."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v)
        h = self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + h.transpose(1, 2).reshape(x.shape)
        return out
