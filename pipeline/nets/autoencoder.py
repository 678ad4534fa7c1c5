"""The compression autoencoder: MONAI's AutoencoderKL behind two plain functions."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from monai.networks.nets.autoencoderkl import AutoencoderKL
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

INITIAL_LOGVAR = -4.0
"""Posterior log-variance at the start. MONAI starts at 0: noise as large as the signal, through
which nothing passes for hundreds of steps."""
LOGVAR_LIMITS = (-30.0, 20.0)
"""MONAI's own clamp of the posterior log-variance."""
EXACT_LOGVAR = -30.0
"""Log-variance of a value without any uncertainty."""


class Voxels(nn.Module):
    """No compression: the latent is the volume itself. For the voxel-space baseline."""

    def latent_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return (channel, x, y, z) of the latent for a volume grid."""
        return (1, *grid)

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B 1 X Y Z"], Float[Tensor, "B 1 X Y Z"]]:
        """Return the volume and the log-variance of what is known exactly."""
        return volume, torch.full_like(volume, EXACT_LOGVAR)

    def decode(self, latent: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume."""
        return latent


class Autoencoder(nn.Module):
    """Volumes in [0, 1] to a Gaussian posterior over latents, and back.

    `patch` voxels a side are folded into channels before the first convolution and unfolded after
    the last (space to depth): full-size feature maps are what a step costs most. `channels` gives
    one level each; every level after the first halves the grid, so the downsampling factor is
    patch · 2 ** (levels - 1). What follows `patch` is there to hold autoencoders made elsewhere.

    With `checkpointing`, activations inside a block are computed again in the backward pass: a
    step takes about a third longer and a fraction of the memory.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        latent_channels: int,
        num_res_blocks: int | tuple[int, ...],
        norm_groups: int,
        patch: int = 1,
        attention_levels: tuple[bool, ...] = (),
        encoder_attention: bool = False,
        decoder_attention: bool = False,
        attention_projection: bool = True,
        combined_qkv: bool = False,
        norm_eps: float = 1e-6,
        transposed_upsampling: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.factor = patch * 2 ** (len(channels) - 1)
        self.latent_channels = latent_channels
        self.checkpointing = checkpointing
        self.net = AutoencoderKL(
            spatial_dims=3,
            in_channels=patch**3,
            out_channels=patch**3,
            channels=channels,
            latent_channels=latent_channels,
            num_res_blocks=(num_res_blocks,) * len(channels)
            if isinstance(num_res_blocks, int)
            else num_res_blocks,
            norm_num_groups=norm_groups,
            norm_eps=norm_eps,
            attention_levels=attention_levels or (False,) * len(channels),
            with_encoder_nonlocal_attn=encoder_attention,
            with_decoder_nonlocal_attn=decoder_attention,
            include_fc=attention_projection,
            use_combined_linear=combined_qkv,
            use_convtranspose=transposed_upsampling,
        )
        log_sigma: Any = self.net.quant_conv_log_sigma.conv
        nn.init.zeros_(log_sigma.weight)
        nn.init.constant_(log_sigma.bias, INITIAL_LOGVAR)

    def latent_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return (channel, x, y, z) of the latent for a volume grid.

        Raises
        ------
        ValueError
            If the grid is not a multiple of the downsampling factor.
        """
        if any(n % self.factor for n in grid):
            raise ValueError(f"grid {grid}: every axis must be a multiple of {self.factor}")
        return (self.latent_channels, *(n // self.factor for n in grid))

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Return the posterior's mean and log-variance (MONAI itself returns sigma)."""
        features = self._through(self.net.encoder.blocks, pixelunshuffle(volume, 3, self.patch))
        mean: Tensor = self.net.quant_conv_mu(features)
        logvar: Tensor = self.net.quant_conv_log_sigma(features).clamp(*LOGVAR_LIMITS)
        return mean, logvar

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume, not clipped."""
        folded = self._through(self.net.decoder.blocks, self.net.post_quant_conv(latent))
        volume: Tensor = pixelshuffle(folded, 3, self.patch)
        return volume

    def _through(self, blocks: Any, x: Tensor) -> Tensor:
        """Run blocks in order; MONAI's own option checkpoints all of them as one, to no avail."""
        steps: Iterable[nn.Module] = blocks
        for block in steps:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x
