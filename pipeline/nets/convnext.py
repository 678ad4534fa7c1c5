"""ConvNeXt (Liu et al. 2022) for grey images, with the parameter names of torchvision's.

So ImageNet weights saved from torchvision load as they are, and torchvision is not needed.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-6


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an image."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's own argument name)
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class _Move(nn.Module):
    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(self.start, self.end)


class _Block(nn.Module):
    """Depthwise 7×7, then a bottleneck the other way round, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            _Move(1, -1),
            nn.LayerNorm(width, eps=EPSILON),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            _Move(-1, 1),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layer_scale * self.block(x)
        return out


class ConvNext(nn.Module):
    """Grey images to one vector each.

    Images are padded to what the strides divide, unless `pad` is off: then, as in torchvision,
    what is left over at the far edges is not seen.
    """

    def __init__(
        self, *, channels: tuple[int, ...], depths: tuple[int, ...], pad: bool = True
    ) -> None:
        super().__init__()
        self.pad = pad
        layers: list[nn.Module] = []
        for level, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            if level == 0:
                entry = [nn.Conv2d(1, width, 4, stride=4), _ChannelNorm(width, eps=EPSILON)]
            else:
                before = channels[level - 1]
                entry = [_ChannelNorm(before, eps=EPSILON), nn.Conv2d(before, width, 2, stride=2)]
            layers += [nn.Sequential(*entry), nn.Sequential(*(_Block(width) for _ in range(depth)))]
        self.features = nn.Sequential(*layers)
        self.norm = _ChannelNorm(channels[-1], eps=EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, image: Float[Tensor, "B 1 X Y"]) -> Float[Tensor, "B W"]:
        """Return the features of images."""
        x, y = image.shape[2:]
        if self.pad:
            image = F.pad(image, [0, -y % self.stride, 0, -x % self.stride])
        out: Tensor = self.norm(self.features(image).mean((2, 3), keepdim=True)).flatten(1)
        return out

    @property
    def stride(self) -> int:
        """Return the side of the smallest image that the network reads (pixels)."""
        return int(4 * 2 ** (len(self.features) // 2 - 1))


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `ConvNext` from those of torchvision's: grey, without the classifier.

    The filters of red, green and blue are summed: what a grey image, repeated, would meet.
    """
    kept = {k: v for k, v in tensors.items() if k.startswith("features.")}
    kept |= {
        k.replace("classifier.0.", "norm."): v
        for k, v in tensors.items()
        if k.startswith("classifier.0.")
    }
    stem = kept.get("features.0.0.weight")
    if stem is not None and stem.shape[1] == 3:
        kept["features.0.0.weight"] = stem.sum(1, keepdim=True)
    return kept
