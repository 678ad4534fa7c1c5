"""Semantic encoders: a latent in, y_sem out."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.blocks import Conv3d, Resample, ResBlock, group_norm


class LatentEncoder(nn.Module):
    """3D convolutions over what sets a latent apart from the mean one, then attention pooling.

    Registered brains are alike: most of a latent, and of anything computed from it, is common to
    all, and stage 2 learns to use what is common and to ignore the rest. So the input is centred
    (`centre`, the mean training latent, and `spread`, the size of the deviations), and y_sem is
    standardised: each of its numbers has mean 0 and variance 1 over training scans.

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
        self.standardise = nn.BatchNorm1d(dim, affine=False, momentum=0.05)

    def fit_input(self, centre: Float[Tensor, "C X Y Z"], spread: Float[Tensor, " C"]) -> None:
        """Set the mean and the standard deviation of standardised training latents."""
        self.centre.copy_(centre)
        self.spread.copy_(spread.reshape(-1, 1, 1, 1))

    def forward(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem of standardised latents."""
        h = nn.functional.silu(self.norm(self.body(self.stem((z_0 - self.centre) / self.spread))))
        # Subjects differ by less than what bfloat16 keeps of the sum.
        with torch.autocast(h.device.type, enabled=False):
            tokens = h.float().flatten(2).transpose(1, 2) + self.position
            query = self.query.expand(len(tokens), -1, -1)
            pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
            y_sem: Tensor = self.standardise(self.head(pooled.flatten(1)))
        return y_sem

    @torch.no_grad()
    def fit_output(self, batches: Iterable[Float[Tensor, "B C X Y Z"]]) -> None:
        """Set the statistics that standardise y_sem to those of these latents, all alike in weight.

        Leaves the encoder in evaluation mode.
        """
        self.eval()
        self.standardise.reset_running_stats()
        self.standardise.momentum = None  # the plain mean over batches
        self.standardise.train()
        for z_0 in batches:
            self(z_0)
        self.standardise.eval()
