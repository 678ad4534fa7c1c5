"""The compression autoencoder: MONAI's AutoencoderKL behind two plain functions."""

from jaxtyping import Float
from monai.networks.nets.autoencoderkl import AutoencoderKL
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Volumes in [0, 1] to a Gaussian posterior over latents, and back.

    `channels` gives one level each; every level after the first halves the grid, so the
    downsampling factor is 2 ** (levels - 1).
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        latent_channels: int,
        num_res_blocks: int,
        norm_groups: int,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(channels) - 1)
        self.latent_channels = latent_channels
        self.net = AutoencoderKL(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            channels=channels,
            latent_channels=latent_channels,
            num_res_blocks=(num_res_blocks,) * len(channels),
            norm_num_groups=norm_groups,
            attention_levels=(False,) * len(channels),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
            use_checkpoint=checkpointing,
        )

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
        mean, sigma = self.net.encode(volume)
        return mean, 2 * sigma.log()

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume, not clipped."""
        volume: Tensor = self.net.decode(latent)
        return volume
