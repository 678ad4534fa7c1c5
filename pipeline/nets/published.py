"""The published semantic encoder (Lozupone et al. 2025), layer by layer.

Trained here or imported; `slices` in `semantic.py` is this project's own form of the idea.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.nets.convnext import ConvNext
from pipeline.nets.encoders import SemanticEncoder

IMAGES_AT_A_TIME = 128
"""Slices that go through the ConvNeXt together: activations of a whole batch of volumes would take
gigabytes."""


def sinusoids(length: int, width: int) -> Float[Tensor, "1 S W"]:
    """Return sinusoidal positions (Vaswani et al. 2017): sines at even, cosines at odd places."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rates = torch.exp(-math.log(10_000) * torch.arange(0, width, 2, dtype=torch.float32) / width)
    encoding = torch.zeros(length, width)
    encoding[:, 0::2] = torch.sin(position * rates)
    encoding[:, 1::2] = torch.cos(position * rates[: width // 2])
    return encoding[None]


class PublishedEncoder(SemanticEncoder):
    """A ConvNeXt over all axial slices of a volume; attention, asked by a soft mean, over slices.

    y_sem has the width of the ConvNeXt's last level, and is not standardised. The volume must have
    `num_slices` slices along z.
    """

    reads = "volume"
    position: Tensor

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
        if dim != channels[-1]:
            raise ValueError(f"dim {dim}: expected {channels[-1]}, the width of the last level")
        self.num_slices = num_slices
        self.backbone = ConvNext(channels=channels, depths=depths, pad=False)
        self.register_buffer("position", sinusoids(num_slices, dim))
        self.score = nn.Linear(dim, 1)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def check_grid(self, shape: tuple[int, ...]) -> None:
        """Refuse volumes (x, y, z) that the encoder cannot read.

        Raises
        ------
        ValueError
            If the number of slices is another, or a slice is too small.
        """
        if shape[2] != self.num_slices:
            raise ValueError(
                f"volumes of {shape[2]} axial slices, the semantic encoder reads {self.num_slices}"
            )
        if min(shape[:2]) < self.backbone.stride:
            raise ValueError(
                f"slices of {shape[0]}×{shape[1]}, the semantic encoder reads"
                f" {self.backbone.stride}×{self.backbone.stride} or more"
            )

    def forward(self, volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem of volumes in [0, 1].

        Raises
        ------
        ValueError
            If the volumes have another number of slices.
        """
        self.check_grid(tuple(volume.shape[2:]))
        images = volume.movedim(-1, 1).flatten(0, 1)
        features = torch.cat(list(self._features(images)))
        with torch.autocast(volume.device.type, enabled=False):
            tokens = features.float().reshape(len(volume), self.num_slices, -1) + self.position
            asked = (self.score(tokens).softmax(dim=1) * tokens).sum(1, keepdim=True)
            pooled, _ = self.attention(
                self.query(asked), self.key(tokens), self.value(tokens), need_weights=False
            )
            y_sem: Tensor = self.norm(pooled[:, 0])
        return y_sem

    def _features(self, images: Float[Tensor, "N 1 X Y"]) -> Iterator[Float[Tensor, "n W"]]:
        """Yield the vectors of images; those of a part are computed again in the backward pass."""
        for part in torch.split(images, IMAGES_AT_A_TIME):
            if torch.is_grad_enabled():
                yield checkpoint(self.backbone, part, use_reentrant=False)
            else:
                yield self.backbone(part)
