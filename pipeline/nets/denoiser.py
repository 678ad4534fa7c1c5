"""The denoiser eps_theta(x_t, t) and the gradient estimator G(x_t, t, y_sem) on its trunk.

Both decode the same encoder features. `trunk` computes them once; `Decoder` turns them into a
field on the latent grid. Any grid works: it is padded to a multiple of the pooling and cropped.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, cat, nn

from pipeline.nets.blocks import (
    Conv3d,
    Resample,
    ResBlock,
    SelfAttention,
    group_norm,
    timestep_embedding,
    zero_init,
)
from pipeline.nets.centred import centred
from pipeline.nets.cpu_kernels import Stride
from pipeline.nets.gaussian_prior import NODES, GaussianPrior, between_nodes
from pipeline.nets.principal_modes import PrincipalModes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnetConfig:
    """Architecture of the denoiser; the gradient estimator mirrors it."""

    in_channels: int
    base_channels: int
    multipliers: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    dropout: float = 0.0
    pooling: Literal["isotropic", "anisotropic"] = "isotropic"
    attention_heads: int = 1

    @property
    def stride(self) -> Stride:
        """Pooling between levels; `anisotropic` keeps the first axis, as published."""
        return (2, 2, 2) if self.pooling == "isotropic" else (1, 2, 2)

    @property
    def emb_dim(self) -> int:
        """Length of the time embedding."""
        return 4 * self.base_channels

    @property
    def level_channels(self) -> list[int]:
        """Channels of each level, finest first."""
        return [self.base_channels * m for m in self.multipliers]

    def skip_channels(self) -> list[int]:
        """Channels of every feature map that the encoder hands on, in order of creation."""
        channels = [self.base_channels]
        for level, width in enumerate(self.level_channels):
            channels += [width] * self.num_res_blocks
            if level + 1 < len(self.multipliers):
                channels.append(width)
        return channels


@dataclass(frozen=True, slots=True)
class Trunk:
    """What the encoder hands to a decoder: deepest features, skips, time embedding."""

    deepest: Float[Tensor, "B C x y z"]
    skips: tuple[Tensor, ...]
    emb: Float[Tensor, "B E"]


def _conditioned(
    in_channels: int,
    out_channels: int,
    config: UnetConfig,
    *,
    semantic: bool = False,
    resample: Resample | None = None,
) -> ResBlock:
    return ResBlock(
        in_channels,
        out_channels,
        emb_dim=config.emb_dim,
        semantic=semantic,
        dropout=config.dropout,
        resample=resample,
    )


class _Stage(nn.Module):
    """A residual block, then attention where the level has it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: UnetConfig,
        *,
        attention: bool,
        semantic: bool,
    ) -> None:
        super().__init__()
        self.block = _conditioned(in_channels, out_channels, config, semantic=semantic)
        heads = config.attention_heads
        self.attention = SelfAttention(out_channels, heads=heads) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor, y_emb: Tensor | None = None) -> Tensor:
        out: Tensor = self.attention(self.block(x, emb, y_emb))
        return out


class Encoder(nn.Module):
    """The contracting path."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.stem = Conv3d(config.in_channels, config.base_channels, 3, padding=1)
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        width = config.base_channels
        for level, out in enumerate(config.level_channels):
            stages = nn.ModuleList()
            for _ in range(config.num_res_blocks):
                attention = level in config.attention_levels
                stages.append(_Stage(width, out, config, attention=attention, semantic=False))
                width = out
            self.stages.append(stages)
            if level + 1 < len(config.multipliers):
                resample = Resample("down", config.stride)
                self.downs.append(_conditioned(width, width, config, resample=resample))

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest features and every skip."""
        h = self.stem(x)
        skips = [h]
        for level, stages in enumerate(self.stages):
            assert isinstance(stages, nn.ModuleList)
            for stage in stages:
                h = stage(h, emb)
                skips.append(h)
            if level < len(self.downs):
                h = self.downs[level](h, emb)
                skips.append(h)
        return h, skips


class Decoder(nn.Module):
    """Middle block and expanding path, with or without semantic conditioning."""

    def __init__(self, config: UnetConfig, *, semantic: bool) -> None:
        super().__init__()
        deepest = config.level_channels[-1]
        self.middle_in = _Stage(deepest, deepest, config, attention=True, semantic=semantic)
        self.middle_out = _Stage(deepest, deepest, config, attention=False, semantic=semantic)
        skips = config.skip_channels()
        self.stages = nn.ModuleList()
        self.ups = nn.ModuleList()
        width = deepest
        for level in reversed(range(len(config.multipliers))):
            stages = nn.ModuleList()
            out = config.level_channels[level]
            for _ in range(config.num_res_blocks + 1):
                attention = level in config.attention_levels
                width_in = width + skips.pop()
                stages.append(_Stage(width_in, out, config, attention=attention, semantic=semantic))
                width = out
            self.stages.append(stages)
            if level > 0:
                resample = Resample("up", config.stride)
                block = _conditioned(width, width, config, semantic=semantic, resample=resample)
                self.ups.append(block)
        self.norm = group_norm(width)
        self.out = zero_init(Conv3d(width, config.in_channels, 3, padding=1))

    def forward(self, trunk: Trunk, y_emb: Tensor | None = None) -> Float[Tensor, "B C X Y Z"]:
        """Return a field on the latent grid."""
        skips = list(trunk.skips)
        h = self.middle_out(self.middle_in(trunk.deepest, trunk.emb, y_emb), trunk.emb, y_emb)
        for level, stages in enumerate(self.stages):
            assert isinstance(stages, nn.ModuleList)
            for stage in stages:
                skip = skips.pop()
                x, y, z = skip.shape[2:]  # an odd axis comes back one longer
                h = stage(cat([h[..., :x, :y, :z], skip], dim=1), trunk.emb, y_emb)
            if level < len(self.ups):
                h = self.ups[level](h, trunk.emb, y_emb)
        field: Tensor = self.out(F.silu(self.norm(h)))
        return field


class Denoiser(nn.Module):
    """eps_theta(x_t, t)."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        self.time = nn.Sequential(
            nn.Linear(config.base_channels, config.emb_dim),
            nn.SiLU(),
            nn.Linear(config.emb_dim, config.emb_dim),
        )
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, semantic=False)

    def trunk(self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"]) -> Trunk:
        """Return the encoder's features, to be decoded once or several times."""
        emb = self.time(timestep_embedding(t, self.config.base_channels))
        deepest, skips = self.encoder(x_t, emb)
        return Trunk(deepest, tuple(skips), emb)

    def forward(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the predicted noise."""
        field: Tensor = self.decoder(self.trunk(x_t, t))
        return field


@dataclass(frozen=True, slots=True)
class Measures:
    """What the amounts of modes in y_sem count: modes, their unit, and deviations from where."""

    modes: Float[Tensor, "K C X Y Z"]
    size: Float[Tensor, ""]
    centre: Float[Tensor, "C X Y Z"]
    spread: Float[Tensor, "C X Y Z"]


class GradientEstimator(nn.Module):
    """G(x_t, t, y_sem): a second decoder on the frozen denoiser's features.

    Scale and shift of channels are the same at every position. With `modes`, y_sem also holds the
    amounts of the training latents' principal modes. Their sum, a rough latent, is added to the
    finest features: registered brains share their positions, so y_sem can name places. And since
    those amounts are linear measurements of z_0, they give the noise of x_t in the subspace of
    the modes exactly (`exact_noise`); what the decoder adds counts outside that subspace, where the
    denoiser is mixed with the noise of Gaussian latents (`mixed_noise`).
    """

    spread: Tensor
    """(C, X, Y, Z): z_0 of a deviation of one unit; see `semantic.DeviationEncoder`."""
    centre: Tensor
    """(C, X, Y, Z): mean of z_0 over training scans."""
    gain: Tensor
    """(NODES,): factor of the decoder's field at evenly spread timesteps, 0 to the last."""

    def __init__(
        self,
        config: UnetConfig,
        *,
        semantic_dim: int,
        modes: int = 0,
        grid: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(semantic_dim, config.emb_dim)
        self.decoder = Decoder(config, semantic=True)
        self.modes = None
        if modes:
            shape = (config.in_channels, *grid)
            self.modes = PrincipalModes(count=modes, shape=shape)
            self.register_buffer("spread", torch.ones(shape))
            self.register_buffer("centre", torch.zeros(shape))
            self.register_buffer("gain", torch.ones(NODES))
            self.prior = GaussianPrior(shape)
            self.place = Conv3d(config.in_channels, config.base_channels, 3, padding=1)

    def rough_latent(self, y_sem: Float[Tensor, "B D"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the deviation from the mean training latent that y_sem stands for."""
        assert self.modes is not None
        with torch.autocast(y_sem.device.type, enabled=False):
            return self.modes.compose(self.modes.amounts_of(y_sem.float()))

    def mode_latent(self, y_sem: Float[Tensor, "B D"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the mean z_0 of training scans plus what the modes of y_sem hold of a scan."""
        return self.centre + self.rough_latent(y_sem) * self.spread

    def forward(self, trunk: Trunk, y_sem: Float[Tensor, "B D"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the decoder's field on the latent grid."""
        if self.modes is not None:
            finest, *others = trunk.skips
            rough = centred(self.rough_latent(y_sem) * self.spread, finest.shape[2:])
            trunk = replace(trunk, skips=(finest + self.place(rough), *others))
        field: Tensor = self.decoder(trunk, self.embed(y_sem))
        return field

    def measures(self) -> Measures | None:
        """Return a copy of what y_sem's amounts count, and from where; None without modes."""
        if self.modes is None:
            return None
        own = (self.modes.modes, self.modes.size, self.centre, self.spread)
        return Measures(*(tensor.clone() for tensor in own))

    @torch.no_grad()
    def read_as(self, before: Measures) -> None:
        """Change the first layer so that it reads amounts of the modes as it read those of before.

        What neither set of modes measures is left out.
        """
        assert self.modes is not None
        stretched = self.modes.modes * (self.spread / before.spread) * self.modes.size
        turned = before.modes.flatten(1) @ stretched.flatten(1).T / before.size
        offset = (self.centre - before.centre) / before.spread
        moved = before.modes.flatten(1) @ offset.flatten() / before.size
        weight = self.embed.weight[:, : len(turned)].clone()
        self.embed.weight[:, : len(turned)] = weight @ turned
        self.embed.bias.add_(weight @ moved)

    def gain_at(self, place: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the factor of the field at places from 0 (no noise) to 1 (the last timestep).

        Without modes it is 1: then the field is all that y_sem does.
        """
        if self.modes is None:
            return torch.ones_like(place)
        return between_nodes(self.gain, place)

    def trusts_denoiser(self, place: Float[Tensor, " B"]) -> bool:
        """Return whether `mixed_noise` takes anything of the denoiser's noise at these places."""
        return self.modes is None or bool((between_nodes(self.prior.trust, place) != 0).any())

    def mixed_noise(
        self,
        eps: Float[Tensor, "B C X Y Z"],
        x_t: Float[Tensor, "B C X Y Z"],
        y_sem: Float[Tensor, "B D"],
        alpha: Float[Tensor, " B"],
        sigma: Float[Tensor, " B"],
        place: Float[Tensor, " B"],
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the denoiser's noise mixed with that of Gaussian latents around y_sem's modes.

        `place` is the timestep's, from 0 to 1. Without modes it is returned as it is.
        """
        if self.modes is None:
            return eps
        with torch.autocast(eps.device.type, enabled=False):
            mean = centred(self.mode_latent(y_sem.float()), eps.shape[2:])
            return self.prior.mixed(eps, x_t, mean, _column(alpha), _column(sigma), place)

    def exact_noise(
        self,
        eps: Float[Tensor, "B C X Y Z"],
        x_t: Float[Tensor, "B C X Y Z"],
        y_sem: Float[Tensor, "B D"],
        alpha: Float[Tensor, " B"],
        sigma: Float[Tensor, " B"],
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return predicted noise, replaced in the subspace of the modes by the noise of x_t itself.

        y_sem holds a = M (z_0 − c) for the K modes M. With x_t = alpha z_0 + sigma eps follows
        M eps = (M (x_t − alpha c) − alpha a) / sigma, so that the error of the prediction in that
        subspace is 0: for every scan and timestep it is at most what it was. Without modes the
        prediction is returned as it is.
        """
        if self.modes is None:
            return eps
        with torch.autocast(eps.device.type, enabled=False):
            amounts = self.modes.amounts_of(y_sem.float())
            centre, spread = (centred(f, eps.shape[2:]) for f in (self.centre, self.spread))
            deviation = (x_t.float() - _column(alpha) * centre) / spread
            measured = self.modes.project(deviation) - alpha[:, None] * amounts
            missing = measured / sigma[:, None] - self.modes.project(eps.float() / spread)
            return eps + self.modes.lift(missing, spread)


def _column(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1 1"]:
    return values[:, None, None, None, None]
