"""The compression autoencoder: MONAI's AutoencoderKL behind two plain functions.

MONAI takes longer to import than torch does: it is imported where the network is built or run.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.nets.boxes import in_boxes
from pipeline.nets.cpu_kernels import Stride, convolve_repeated

if TYPE_CHECKING:
    from monai.networks.nets.autoencoderkl import AutoencoderKL

INITIAL_LOGVAR = -4.0
"""Posterior log-variance at the start. MONAI starts at 0: noise as large as the signal, through
which nothing passes for hundreds of steps."""
LOGVAR_LIMITS = (-30.0, 20.0)
"""MONAI's own clamp of the posterior log-variance."""
EXACT_LOGVAR = -30.0
"""Log-variance of a value without any uncertainty."""

Margins = list[tuple[int, int]]
"""Latents of air before and behind each axis."""


def latent_shape(grid: tuple[int, ...], *, channels: int, factor: int) -> tuple[int, ...]:
    """Return (channel, x, y, z) of the latent for a volume grid.

    Raises
    ------
    ValueError
        If the grid is not a multiple of the downsampling factor.
    """
    if any(n % factor for n in grid):
        raise ValueError(f"grid {grid}: every axis must be a multiple of {factor}")
    return (channels, *(n // factor for n in grid))


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

    Volumes smaller than `box` go through amid the air that this shape leaves around them: group
    normalisation sees the share of background, and a brain that fills more of its grid than those
    trained on came back a fifth too dark (benchmarks/results/boxes.md).

    With `boxes` volumes are encoded and decoded in overlapping boxes of that many voxels, which
    takes their memory instead of the volume's; see `nets/boxes.py`. `maisi` makes MONAI's
    AutoencoderKlMaisi, without its split convolutions.

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
        maisi: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.factor = patch * 2 ** (len(channels) - 1)
        self.box: tuple[int, ...] | None = None
        self.boxes: tuple[int, ...] | None = None
        self.latent_channels = latent_channels
        self.checkpointing = checkpointing
        self.net = _network(
            channels,
            maisi=maisi,
            spatial_dims=3,
            in_channels=patch**3,
            out_channels=patch**3,
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
        return latent_shape(grid, channels=self.latent_channels, factor=self.factor)

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Return the posterior's mean and log-variance (MONAI itself returns sigma)."""
        if self.boxes is not None:
            mean, logvar = in_boxes(self._both, volume, self.boxes).chunk(2, dim=1)
            return mean, logvar
        return self._encode(volume, self._margins([n // self.factor for n in volume.shape[2:]]))

    def _both(self, volume: Tensor) -> Tensor:
        return torch.cat(self._encode(volume, [(0, 0)] * 3), dim=1)

    def _encode(self, volume: Tensor, margins: Margins) -> tuple[Tensor, Tensor]:
        from monai.networks.utils import pixelunshuffle

        surrounded = _surround(volume, margins, self.factor, volume.new_zeros(()))
        folded = pixelunshuffle(surrounded, 3, self.patch)
        features = _inside(self._through(self.net.encoder.blocks, folded), margins, 1)
        mean: Tensor = self.net.quant_conv_mu(features)
        logvar: Tensor = self.net.quant_conv_log_sigma(features).clamp(*LOGVAR_LIMITS)
        return mean, logvar

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume, not clipped."""
        if self.boxes is not None:
            sides = tuple(n // self.factor for n in self.boxes)
            return in_boxes(lambda part: self._decode(part, [(0, 0)] * 3), latent, sides)
        return self._decode(latent, self._margins(latent.shape[2:]))

    def _decode(self, latent: Tensor, margins: Margins) -> Tensor:
        from monai.networks.utils import pixelshuffle

        surrounded = _surround(latent, margins, 1, _corners(latent))
        folded = self._through(self.net.decoder.blocks, self.net.post_quant_conv(surrounded))
        volume = pixelshuffle(folded, 3, self.patch)
        return _inside(volume, margins, self.factor)

    def _margins(self, shape: Sequence[int]) -> Margins:
        """Return what `box` is larger than latents of this shape."""
        box = shape if self.box is None else [n // self.factor for n in self.box]
        missing = [max(0, b - n) for b, n in zip(box, shape, strict=True)]
        return [(n // 2, n - n // 2) for n in missing]

    def _through(self, blocks: Any, x: Tensor) -> Tensor:
        """Run blocks in order; MONAI's own option checkpoints all of them as one, to no avail."""
        steps: Iterable[nn.Module] = blocks
        for block in steps:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(_run, block, x, use_reentrant=False)
            else:
                x = _run(block, x)
        return x


def _run(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block; on the CPU without repeating voxels before a convolution."""
    repeated = _repeated_convolution(block) if x.device.type == "cpu" else None
    if repeated is not None:
        return convolve_repeated(repeated[0], x, repeated[1])
    out: Tensor = block(x)
    return out


def _repeated_convolution(block: nn.Module) -> tuple[nn.Conv3d, Stride] | None:
    """Return the 3³ convolution of MONAI's UpSample and how often it repeats voxels, or None."""
    parts = dict(block.named_children())
    if set(parts) != {"upsample_non_trainable", "postconv"}:
        return None
    repeat, (layer, *others) = parts["upsample_non_trainable"], list(parts["postconv"].children())
    plain = isinstance(layer, nn.Conv3d) and not others and layer.kernel_size == (3, 3, 3)
    if not (plain and isinstance(repeat, nn.Upsample) and repeat.mode == "nearest"):
        return None
    assert isinstance(layer, nn.Conv3d)
    if layer.padding != (1, 1, 1) or layer.stride != (1, 1, 1) or layer.groups != 1:
        return None
    if not isinstance(repeat.scale_factor, tuple):
        return None
    x, y, z = map(int, repeat.scale_factor)
    return layer, (x, y, z)


def _network(channels: tuple[int, ...], *, maisi: bool, **arguments: Any) -> "AutoencoderKL":
    """Return MONAI's network; that of MAISI lives among its applications."""
    if not maisi:
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        return AutoencoderKL(channels=channels, **arguments)
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

    return AutoencoderKlMaisi(num_channels=channels, num_splits=1, save_mem=False, **arguments)


def _surround(x: Tensor, margins: Margins, unit: int, air: Tensor) -> Tensor:
    """Put air around the spatial axes, `unit` voxels to a latent."""
    pads = [n * unit for pair in reversed(margins) for n in pair]
    return nn.functional.pad(x - air, pads) + air if any(pads) else x


def _inside(x: Tensor, margins: Margins, unit: int) -> Tensor:
    """Take away what `_surround` put there."""
    return nn.functional.pad(x, [-n * unit for pair in reversed(margins) for n in pair])


def _corners(latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B C 1 1 1"]:
    """Return the median of the eight corners, which are air where a brain is in the middle."""
    x, y, z = (max(1, n - 1) for n in latent.shape[2:])
    ends = latent[:, :, ::x, ::y, ::z].flatten(2)
    return ends.median(-1).values[..., None, None, None]
