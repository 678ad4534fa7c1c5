"""Semantic encoders: a latent in, y_sem out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.blocks import Conv3d, Resample, ResBlock, group_norm


class LatentEncoder(nn.Module):
    """3D convolutions over what sets a latent apart from the mean one, then attention pooling.

    Registered brains are alike: most of a latent is common to all, and without `centre` and
    `spread`, the mean latent and the size of the deviations from it, y_sem hardly differs between
    subjects and stage 2 learns to ignore it.

    A few learned queries attend to every position of the coarsest grid (positions carry a learned
    embedding), so that y_sem summarises places and not only averages.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        grid: tuple[int, ...],
        channels: tuple[int, ...],
        dim: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("centre", torch.zeros(in_channels, *grid))
        self.register_buffer("spread", torch.ones(in_channels, 1, 1, 1))
        self.stem = Conv3d(in_channels, channels[0], 3, padding=1)
        body: list[nn.Module] = []
        width = channels[0]
        for level, out in enumerate(channels):
            body.append(ResBlock(width, out))
            width = out
            if level + 1 < len(channels):
                body.append(ResBlock(width, width, resample=Resample("down", (2, 2, 2))))
                grid = tuple(n // 2 for n in grid)
        self.body = nn.Sequential(*body)
        self.norm = group_norm(width)
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1] * grid[2], width))
        self.query = nn.Parameter(0.02 * torch.randn(1, num_heads, width))
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.head = nn.Sequential(
            nn.LayerNorm(num_heads * width), nn.Linear(num_heads * width, dim)
        )

    def fit_input(self, centre: Float[Tensor, "C X Y Z"], spread: Float[Tensor, " C"]) -> None:
        """Set the mean and the standard deviation of standardised training latents."""
        self.centre.copy_(centre)
        self.spread.copy_(spread.reshape(-1, 1, 1, 1))

    def forward(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem of standardised latents."""
        h = nn.functional.silu(self.norm(self.body(self.stem((z_0 - self.centre) / self.spread))))
        tokens = h.flatten(2).transpose(1, 2) + self.position
        query = self.query.expand(len(tokens), -1, -1)
        pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
        y_sem: Tensor = self.head(pooled.flatten(1))
        return y_sem
