"""Structural similarity with a Gaussian window: as a metric, over scales, and as a training loss.

SSIM is Wang et al. 2004, MS-SSIM Wang et al. 2003; intensities are in [0, 1]. Both factors of SSIM
are written as one less what the volumes differ by: 2 cov(x, y) is var(x) + var(y) - var(x - y), and
2 mx my is mx² + my² - (mx - my)². Where tissue is flat, variances are differences of nearly equal
numbers, whose rounding would else make equal volumes unlike, or more than alike.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
LOSS_RADIUS = 3
"""Radius of the window of the training loss (voxels)."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""As published, finest scale first. Small grids have fewer scales; their weights are rescaled."""


def ssim_window(shape: tuple[int, ...]) -> int:
    """Return the side of the SSIM window (voxels, odd): 11, or about half a small grid's side."""
    half = max(3, min(shape) // 2)
    return min(SSIM_WINDOW, half if half % 2 else half - 1)


def ssim_and_contrast(
    reference: Float[Tensor, "B 1 X Y Z"], prediction: Float[Tensor, "B 1 X Y Z"], window: int
) -> tuple[Float[Tensor, "B 1 x y z"], Float[Tensor, "B 1 x y z"]]:
    """Return the maps of SSIM and of its contrast-structure part, where the window fits.

    The Gaussian window is a product of one window an axis: applied as three matrices, it costs a
    tenth of the convolution with window³ weights and gives the same map. No value exceeds 1,
    whatever a processor rounds. The maps are float64, which keeps variances to 1e-13.
    """
    return SsimReference(reference, window).compare(prediction)


class SsimReference:
    """Volumes that others are compared with; their own windowed averages are computed once."""

    def __init__(self, reference: Float[Tensor, "B 1 X Y Z"], window: int) -> None:
        self.volume, self.window = reference.double(), window
        self.mean = _averaged(self.volume, window)
        self.of_square = _averaged(self.volume.square(), window)

    def compare(
        self, prediction: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B 1 x y z"], Float[Tensor, "B 1 x y z"]]:
        """Return the maps of `ssim_and_contrast`."""
        other = prediction.double()
        # One map after the other: of a large volume each takes tens of megabytes, on every axis.
        mean = _averaged(other, self.window)
        of_difference = _averaged((self.volume - other).square(), self.window)
        of_both = _averaged(other.square(), self.window).add_(self.of_square)
        return _ssim_of_averages(self.mean, mean, of_difference, of_both)


def _averaged(maps: Float[Tensor, "B C X Y Z"], window: int) -> Float[Tensor, "B C x y z"]:
    """Return Gaussian averages of maps where the window fits."""
    for axis, side in enumerate(maps.shape[2:], start=2):
        maps = torch.tensordot(maps, _window_matrix(side, window).to(maps), dims=([axis], [1]))
        maps = maps.movedim(-1, axis)
    return maps


def num_scales(shape: tuple[int, ...]) -> int:
    """Return how many of the five scales a grid has room for: the window must fit into each."""
    window = ssim_window(shape)
    return max(
        n for n in range(1, len(MS_SSIM_WEIGHTS) + 1) if n == 1 or min(shape) >> (n - 1) >= window
    )


def ms_ssim(
    reference: Float[Tensor, "1 1 X Y Z"],
    prediction: Float[Tensor, "1 1 X Y Z"],
    mask: Bool[Tensor, "1 1 X Y Z"],
) -> tuple[float, float]:
    """Return MS-SSIM inside the mask and over the whole volume; intensities in [0, 1].

    Inside the mask, each scale's map is averaged over the mask voxels alone, as SSIM's is.
    """
    shape = tuple(reference.shape[2:])
    scales, window = num_scales(shape), ssim_window(shape)
    # In float64, as the maps are: halved volumes too must differ by no more than the given ones.
    a, b, inside = reference.double(), prediction.double().clamp(0, 1), mask.double()
    total = sum(MS_SSIM_WEIGHTS[:scales])
    brain = whole = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS[:scales]):
        ssim, cs = ssim_and_contrast(a, b, window)
        values = (ssim if scale == scales - 1 else cs)[0, 0].cpu()
        x, y, z = (slice(window // 2, side - window // 2) for side in a.shape[2:])
        chosen = inside[0, 0, x, y, z].cpu() >= 0.5
        if chosen.any():
            brain *= max(float(values[chosen].mean()), 0.0) ** (weight / total)
        whole *= max(float(values.mean()), 0.0) ** (weight / total)
        a, b, inside = (F.avg_pool3d(v, 2) for v in (a, b, inside))
    return brain, whole


def ssim_map(
    x: Float[Tensor, "B 1 X Y Z"], y: Float[Tensor, "B 1 X Y Z"]
) -> Float[Tensor, "B 1 X Y Z"]:
    """Return the SSIM around every voxel, differentiable, for training.

    Gaussian window of 7 voxels, sigma 1.5, zeros beyond the grid. MONAI's own convolves with the
    dense window, which costs as much as the network; this one is separable. In float32 under
    autocast too.
    """
    x, y = x.float(), y.float()
    with torch.autocast(x.device.type, enabled=False):
        averages = _blurred(_maps_to_average(x, y))
    return _ssim_of_averages(*averages.chunk(4, dim=1))[0]


def _maps_to_average(
    x: Float[Tensor, "B 1 X Y Z"], y: Float[Tensor, "B 1 X Y Z"]
) -> Float[Tensor, "B 4 X Y Z"]:
    """Return what SSIM needs the windowed averages of: x, y, (x - y)² and x² + y²."""
    return torch.cat([x, y, (x - y).square(), x.square() + y.square()], dim=1)


def _ssim_of_averages(
    mean_x: Float[Tensor, "B 1 x y z"],
    mean_y: Float[Tensor, "B 1 x y z"],
    of_difference: Float[Tensor, "B 1 x y z"],
    of_both: Float[Tensor, "B 1 x y z"],
) -> tuple[Float[Tensor, "B 1 x y z"], Float[Tensor, "B 1 x y z"]]:
    """Return SSIM and its contrast-structure part from the averages of `_maps_to_average`."""
    powers, apart = mean_x.square() + mean_y.square(), (mean_x - mean_y).square()
    variances = (of_both - powers).clamp(min=0)
    contrast = 1 - (of_difference - apart).clamp(min=0) / (variances + C2)
    return (1 - apart / (powers + C1)) * contrast, contrast


def _window_matrix(side: int, window: int) -> Float[Tensor, "S T"]:
    """Return the matrix that weighs every whole window of an axis with a Gaussian."""
    sigma = SSIM_SIGMA * window / SSIM_WINDOW
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    places = torch.arange(side - window + 1)
    matrix = torch.zeros(len(places), side, dtype=torch.float64)
    for offset, weight in enumerate(weights / weights.sum()):
        matrix[places, places + offset] = weight
    return matrix


def _blurred(maps: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
    """Return maps after a Gaussian along each axis, of the size that they had."""
    offsets = torch.arange(-LOSS_RADIUS, LOSS_RADIUS + 1, device=maps.device, dtype=maps.dtype)
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    channels = maps.shape[1]
    for axis in range(3):
        side, padding = [1, 1, 1], [0, 0, 0]
        side[axis], padding[axis] = len(window), LOSS_RADIUS
        kernel = window.view(1, 1, *side).expand(channels, -1, -1, -1, -1)
        maps = F.conv3d(maps, kernel, padding=tuple(padding), groups=channels)
    return maps
