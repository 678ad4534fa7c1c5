"""LPIPS on SqueezeNet features (Zhang et al. 2018), in the layout of the `lpips` package's weights.

The architecture is written here because torchvision, which lpips needs, has no build for every
torch. The weights are the user's: `torch.save(lpips.LPIPS(net="squeeze").state_dict(), FILE)`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 384, 384, 512, 512)
FIRES = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}
"""Position in SqueezeNet 1.1 to (channels in, squeezed, expanded a side)."""
SLICES = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 11), (11, 12), (12, 13))
"""Positions (from, to) whose output is compared."""
SMALLEST = 17
"""Pixels a side that all pooling leaves something of; smaller images are padded with black."""


class _Fire(nn.Module):
    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


def _layer(position: int) -> nn.Module:
    if position in FIRES:
        return _Fire(*FIRES[position])
    if position == 0:
        return nn.Conv2d(3, 64, 3, stride=2)
    return nn.ReLU() if position == 1 else nn.MaxPool2d(3, stride=2, ceil_mode=True)


class _Scaling(nn.Module):
    """ImageNet's mean and spread, of images in [-1, 1]."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))


class _Linear(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))


class Lpips(nn.Module):
    """Perceptual distance of grey images; 0 is equal."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = nn.Module()
        for number, (start, stop) in enumerate(SLICES, start=1):
            part = nn.Sequential()
            for position in range(start, stop):
                part.add_module(str(position), _layer(position))
            self.net.add_module(f"slice{number}", part)
        for number, channels in enumerate(WIDTHS):
            self.add_module(f"lin{number}", _Linear(channels))
        self.eval()
        self.requires_grad_(False)

    def _features(self, images: Float[Tensor, "N 1 H W"]) -> list[Tensor]:
        height, width = images.shape[2:]
        images = F.pad(images, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)))
        x = (2 * images - 1).expand(-1, 3, -1, -1)
        x = (x - self.scaling_layer.shift) / self.scaling_layer.scale
        features = []
        for part in self.net.children():
            x = part(x)
            features.append(F.normalize(x, dim=1, eps=1e-10))
        return features

    def forward(
        self, a: Float[Tensor, "N 1 H W"], b: Float[Tensor, "N 1 H W"]
    ) -> Float[Tensor, " N"]:
        """Return the distance of each pair of images with intensities in [0, 1]."""
        total = torch.zeros(len(a), device=a.device)
        pairs = zip(self._features(a), self._features(b), strict=True)
        for number, (of_a, of_b) in enumerate(pairs):
            weights: Tensor = getattr(self, f"lin{number}").model[1].weight
            difference = F.conv2d((of_a - of_b).square(), weights.to(of_a.dtype))
            total = total + difference.mean((1, 2, 3))
        return total


def plane_slices(volume: Float[Tensor, "B 1 X Y Z"], axis: int, picked: Tensor) -> Tensor:
    """Return slices of volumes perpendicular to an axis (0, 1, 2) as images (N, 1, H, W)."""
    images = volume.index_select(axis + 2, picked).movedim(axis + 2, 1)
    return images.reshape(-1, 1, *images.shape[3:])


def lpips_of_volumes(
    net: Lpips,
    reference: Float[Tensor, "1 1 X Y Z"],
    made: Float[Tensor, "1 1 X Y Z"],
    brain: Bool[Tensor, "1 1 X Y Z"],
) -> float:
    """Return the mean LPIPS over the slices of the three planes that hold brain."""
    device = next(net.parameters()).device
    planes = []
    for axis in range(3):
        others = [a for a in (2, 3, 4) if a != axis + 2]
        picked = brain.any(dim=others[1]).any(dim=others[0]).flatten().nonzero().flatten()
        pairs = (plane_slices(v, axis, picked).to(device) for v in (reference, made))
        planes.append(float(net(*pairs).mean()))
    return sum(planes) / len(planes)
