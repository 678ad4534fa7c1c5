"""Semantic encoders: a latent, or a volume, in; y_sem out.

One interface, `encoders.SemanticEncoder`, and several networks behind it.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.blocks import Conv3d, Resample, ResBlock, group_norm
from pipeline.nets.centred import centred
from pipeline.nets.convnext import ConvNext
from pipeline.nets.encoders import SemanticEncoder
from pipeline.nets.principal_modes import PrincipalModes
from pipeline.nets.published import PublishedEncoder
from pipeline.nets.tissue import TissueModes

LOUDNESS = {"modes": 0.5, "tissue": 1.0, "summary": 0.1}
"""Root mean square of the numbers of each part of y_sem over training scans (docs/method.md)."""
TISSUE_WIDTH = 64
"""Channels of the network that reads tissue fractions from latents."""


class DeviationEncoder(SemanticEncoder):
    """Encoder of a latent's deviation from the mean latent; its summary is standardised.

    Registered brains are alike: most of a latent, and of anything computed from it, is common to
    all, and stage 2 learns to use what is common and to ignore the rest. So the input is centred
    (`centre`, the mean training latent) and measured in one unit a channel (`spread`: where z_0 has
    unit variance at each voxel, air would otherwise count as much as brain), and the network's
    summary is standardised over training scans, as training sees them: each of its numbers has mean
    0 and the same variance.

    With `modes`, the amounts of that many principal modes of the training latents are part of
    y_sem, which a network would need thousands of steps and a few hundred scans to learn; with
    `tissue_modes`, so are the amounts of that many modes of tissue fractions. They come first, in
    this order, and the network's summary is the rest. Amounts keep their order of size. What reads
    y_sem as it is (distances, ridge regression) hears the parts as loud as LOUDNESS has them:
    tissue most, and the summary least, whose many numbers would drown the rest.
    """

    mixes_batch = True
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        grid: tuple[int, ...],
        dim: int,
        modes: int = 0,
        tissue_modes: int = 0,
        tissue_width: int = TISSUE_WIDTH,
    ) -> None:
        super().__init__(dim)
        self.summary_dim = dim - modes - tissue_modes
        self.modes = PrincipalModes(count=modes, shape=(in_channels, *grid)) if modes else None
        self.tissue: TissueModes | None = None
        if tissue_modes:
            self.tissue = TissueModes(
                count=tissue_modes, in_channels=in_channels, grid=grid, width=tissue_width
            )
        self.register_buffer("centre", torch.zeros(in_channels, *grid))
        self.register_buffer("spread", torch.ones(in_channels, *grid))
        self.standardise = nn.BatchNorm1d(self.summary_dim, affine=False, momentum=0.05)

    def set_input_statistics(
        self, centre: Float[Tensor, "C X Y Z"], spread: Float[Tensor, "C X Y Z"]
    ) -> None:
        """Set the mean of standardised training latents and the unit of deviations from it."""
        self.centre.copy_(centre)
        self.spread.copy_(spread)

    def forward(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem of standardised latents."""
        deviation = self.deviation(z_0)
        summary = self._standardised(deviation)
        with torch.autocast(z_0.device.type, enabled=False):
            parts = [summary.float()]
            if self.tissue is not None:
                parts.insert(0, self.tissue(deviation))
            if self.modes is not None:
                parts.insert(0, self.modes.project(deviation.float()))
            return torch.cat(parts, dim=1)

    def standardised_summary(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B S"]:
        """Return the network's part of y_sem alone; the amounts of modes are not computed."""
        return self._standardised(self.deviation(z_0)).float()

    def _standardised(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B S"]:
        alone = self.modes is None and self.tissue is None
        loudness = 1.0 if alone else LOUDNESS["summary"]
        summary: Tensor = loudness * self.standardise(self.summarise(deviation))
        return summary

    def parts(self) -> dict[str, slice]:
        """Return where in y_sem each of its parts is."""
        modes = 0 if self.modes is None else len(self.modes.spread)
        tissue = 0 if self.tissue is None else len(self.tissue.modes.spread)
        parts = {
            "modes": slice(0, modes),
            "tissue": slice(modes, modes + tissue),
            "summary": slice(modes + tissue, self.dim),
        }
        return {name: part for name, part in parts.items() if part.stop > part.start}

    def with_mode_noise(
        self, y_sem: Float[Tensor, "B D"], generator: torch.Generator
    ) -> Float[Tensor, "B D"]:
        """Return y_sem of training scans with amounts as uncertain as those of unseen scans."""
        fitted: dict[str, PrincipalModes | None] = {
            "modes": self.modes,
            "tissue": None if self.tissue is None else self.tissue.modes,
        }
        noised = y_sem.clone()
        for name, part in self.parts().items():
            if (modes := fitted.get(name)) is None:
                continue
            own = y_sem[:, part]
            noise = torch.randn(own.shape, generator=generator, device=generator.device)
            noised[:, part] = modes.with_noise(own, noise.to(y_sem.device))
        return noised

    def deviation(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return latents' deviations from the mean one, of unit variance a channel.

        On the encoder's own grid: latents of a smaller one lack air, and air deviates from none.
        """
        shape = z_0.shape[2:]
        deviation = (z_0 - centred(self.centre, shape)) / centred(self.spread, shape)
        return centred(deviation, self.centre.shape[1:])

    def summarise(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return the network's part of y_sem before it is standardised, in float32."""
        raise NotImplementedError

    @torch.no_grad()
    def estimate_output_statistics(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics that standardise y_sem to those of these latents, all alike in weight.

        Leaves the encoder in evaluation mode.
        """
        self.eval()
        self.standardise.reset_running_stats()
        self.standardise.momentum = None  # the plain mean over batches
        self.standardise.train()
        for z_0 in batches:
            self.standardised_summary(z_0)
        self.standardise.eval()


class LatentEncoder(DeviationEncoder):
    """3D convolutions over the latent, then attention pooling.

    A few learned queries attend to every position of the coarsest grid (positions carry a learned
    embedding), so that y_sem summarises places and not only averages.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        grid: tuple[int, ...],
        channels: tuple[int, ...],
        dim: int,
        num_heads: int,
        **fixed_parts: int,
    ) -> None:
        super().__init__(in_channels=in_channels, grid=grid, dim=dim, **fixed_parts)
        self.stem = Conv3d(in_channels, channels[0], 3, padding=1)
        body: list[nn.Module] = []
        width = channels[0]
        for level, out in enumerate(channels):
            body.append(ResBlock(width, out))
            width = out
            if level + 1 < len(channels):
                halved = (2 if grid[0] > 1 else 1, 2 if grid[1] > 1 else 1, 2 if grid[2] > 1 else 1)
                body.append(ResBlock(width, width, resample=Resample("down", halved)))
                grid = tuple(-(-n // by) for n, by in zip(grid, halved, strict=True))
        self.body = nn.Sequential(*body)
        self.norm = group_norm(width)
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1] * grid[2], width))
        self.query = nn.Parameter(0.02 * torch.randn(1, num_heads, width))
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.head = nn.Sequential(
            nn.LayerNorm(num_heads * width), nn.Linear(num_heads * width, self.summary_dim)
        )

    def summarise(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem before it is standardised."""
        h = F.silu(self.norm(self.body(self.stem(deviation))))
        # Subjects differ by less than what bfloat16 keeps of the sum.
        with torch.autocast(h.device.type, enabled=False):
            tokens = h.float().flatten(2).transpose(1, 2) + self.position
            query = self.query.expand(len(tokens), -1, -1)
            pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
            y_sem: Tensor = self.head(pooled.flatten(1))
        return y_sem


class SliceAttention(nn.Module):
    """One vector of many slices: a query from soft attention, then multi-head attention."""

    def __init__(self, *, num_slices: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, num_slices, width))
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, slices: Float[Tensor, "B S W"]) -> Float[Tensor, "B W"]:
        """Return one vector a scan, in float32."""
        with torch.autocast(slices.device.type, enabled=False):
            tokens = slices.float() + self.position
            query = (self.score(tokens).softmax(dim=1) * tokens).sum(1, keepdim=True)
            pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
            out: Tensor = self.norm(pooled[:, 0])
        return out


class LatentSlicesEncoder(DeviationEncoder):
    """The published idea on latents: 2D convolutions over axial slices, attention over slices."""

    def __init__(
        self,
        *,
        in_channels: int,
        grid: tuple[int, ...],
        channels: tuple[int, ...],
        dim: int,
        num_heads: int,
        **fixed_parts: int,
    ) -> None:
        super().__init__(in_channels=in_channels, grid=grid, dim=dim, **fixed_parts)
        body: list[nn.Module] = []
        width = in_channels
        for out in channels:
            stride = 1 if width == in_channels else 2
            body += [nn.Conv2d(width, out, 3, stride, padding=1), group_norm(out), nn.SiLU()]
            body += [nn.Conv2d(out, out, 3, padding=1), group_norm(out), nn.SiLU()]
            width = out
        self.body = nn.Sequential(*body)
        self.slices = SliceAttention(num_slices=grid[-1], width=width, num_heads=num_heads)
        self.head = nn.Linear(width, self.summary_dim)

    def summarise(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem before it is standardised."""
        pooled = self.slices(_by_slice(deviation, lambda s: self.body(s).mean((2, 3))))
        with torch.autocast(pooled.device.type, enabled=False):
            y_sem: Tensor = self.head(pooled)
        return y_sem


class VolumeSlicesEncoder(SemanticEncoder):
    """The published idea (Lozupone et al. 2025): a 2D ConvNeXt over axial slices of the volume.

    Grey slices, no standardisation of y_sem. `num_slices` of them, evenly spread. The published
    layers themselves are in `published.py`.
    """

    reads = "volume"

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        depths: tuple[int, ...],
        num_slices: int,
        dim: int,
        num_heads: int,
    ) -> None:
        super().__init__(dim)
        self.num_slices = num_slices
        self.backbone = ConvNext(channels=channels, depths=depths)
        width = channels[-1]
        self.slices = SliceAttention(num_slices=num_slices, width=width, num_heads=num_heads)
        self.head = nn.Identity() if width == dim else nn.Linear(width, dim)

    def forward(self, volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem of volumes in [0, 1]."""
        depth = volume.shape[-1]
        at = torch.linspace(0, depth - 1, self.num_slices, device=volume.device).round().long()
        y_sem: Tensor = self.head(self.slices(_by_slice(volume[..., at], self.backbone)))
        return y_sem


def _by_slice(volume: Float[Tensor, "B C X Y Z"], net: Any) -> Float[Tensor, "B Z W"]:
    """Return net's vector of each axial slice."""
    batch, _, _, _, depth = volume.shape
    slices = volume.movedim(-1, 1).flatten(0, 1)
    features: Tensor = net(slices)
    return features.reshape(batch, depth, -1)


ENCODERS: dict[str, type[SemanticEncoder]] = {
    "latent": LatentEncoder,
    "latent-2.5d": LatentSlicesEncoder,
    "slices": VolumeSlicesEncoder,
    "published": PublishedEncoder,
}


def build_encoder(*, kind: str = "latent", **architecture: Any) -> SemanticEncoder:
    """Build a semantic encoder; models of before there was a choice have no `kind`."""
    return ENCODERS[kind](**architecture)
