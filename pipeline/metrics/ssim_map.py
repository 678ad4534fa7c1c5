"""Structural similarity as a differentiable map."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RADIUS = 3
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim_map(
    x: Float[Tensor, "B 1 X Y Z"], y: Float[Tensor, "B 1 X Y Z"]
) -> Float[Tensor, "B 1 X Y Z"]:
    """Return the SSIM around every voxel (Wang et al. 2004), data range 1.

    Gaussian window of 7 voxels, sigma 1.5, zeros beyond the grid. MONAI's own convolves with the
    dense window, which costs as much as the network; this one is separable. In float32 under
    autocast too, and written as one less what the volumes differ by (2 cov(x, y) is
    var(x) + var(y) - var(x - y)): where tissue is flat, variances are differences of nearly equal
    numbers, and their rounding would else make equal volumes unlike, or more than alike.
    """
    x, y = x.float(), y.float()
    with torch.autocast(x.device.type, enabled=False):
        blurred = _blur(torch.cat([x, y, (x - y).square(), x.square() + y.square()], dim=1))
    mx, my, of_difference, of_both = torch.chunk(blurred, 4, dim=1)
    powers, apart = mx.square() + my.square(), (mx - my).square()
    variances = (of_both - powers).clamp(min=0)
    similarity: Tensor = 1 - (of_difference - apart).clamp(min=0) / (variances + C2)
    return (1 - apart / (powers + C1)) * similarity


def _blur(maps: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
    offsets = torch.arange(-RADIUS, RADIUS + 1, device=maps.device, dtype=maps.dtype)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = window / window.sum()
    channels = maps.shape[1]
    for axis in range(3):
        side, padding = [1, 1, 1], [0, 0, 0]
        side[axis], padding[axis] = len(window), RADIUS
        kernel = window.view(1, 1, *side).expand(channels, -1, -1, -1, -1)
        maps = F.conv3d(maps, kernel, padding=tuple(padding), groups=channels)
    return maps
