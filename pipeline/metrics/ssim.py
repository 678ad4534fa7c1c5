"""Structural similarity with a Gaussian window (Wang et al. 2004)."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.metrics.gaussianity import latent_health as latent_health

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def ssim_window(shape: tuple[int, ...]) -> int:
    """Return the side of the SSIM window (voxels, odd): 11, or about half a small grid's side."""
    half = max(3, min(shape) // 2)
    return min(SSIM_WINDOW, half if half % 2 else half - 1)


def ssim_and_contrast(
    reference: Float[Tensor, "B 1 X Y Z"], prediction: Float[Tensor, "B 1 X Y Z"], window: int
) -> tuple[Float[Tensor, "B 1 x y z"], Float[Tensor, "B 1 x y z"]]:
    """Return the maps of SSIM and of its contrast-structure part, where the window fits.

    The Gaussian window is a product of one window an axis: applied as three matrices, it costs a
    tenth of the convolution with window³ weights and gives the same map.

    Both factors are written as one less what the volumes differ by: 2 cov(x, y) is
    var(x) + var(y) - var(x - y), and 2 mx my is mx² + my² - (mx - my)². So no value exceeds 1,
    whatever a processor rounds, and float64 keeps variances, which are differences of nearly equal
    numbers, to 1e-13. The maps are float64.
    """
    x, y = reference.double(), prediction.double()
    maps = torch.cat([x, y, (x - y).square(), x.square() + y.square()], dim=1)
    for axis, side in enumerate(maps.shape[2:], start=2):
        maps = torch.tensordot(maps, _blur(side, window).to(maps), dims=([axis], [1]))
        maps = maps.movedim(-1, axis)
    mu_x, mu_y, of_difference, of_both = torch.chunk(maps, 4, dim=1)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    powers, apart = mu_x.square() + mu_y.square(), (mu_x - mu_y).square()
    variances = (of_both - powers).clamp(min=0)
    contrast = 1 - (of_difference - apart).clamp(min=0) / (variances + c2)
    return (1 - apart / (powers + c1)) * contrast, contrast


def _blur(side: int, window: int) -> Float[Tensor, "S T"]:
    """Return the matrix that weighs every whole window of an axis with a Gaussian."""
    sigma = SSIM_SIGMA * window / SSIM_WINDOW
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    places = torch.arange(side - window + 1)
    matrix = torch.zeros(len(places), side, dtype=torch.float64)
    for offset, weight in enumerate(weights / weights.sum()):
        matrix[places, places + offset] = weight
    return matrix
