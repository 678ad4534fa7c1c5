"""Multi-scale SSIM (Wang et al. 2003), inside the brain and over the whole volume."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.metrics.ssim import ssim_and_contrast, ssim_window

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""As published, finest scale first. Small grids have fewer scales; their weights are rescaled."""


def num_scales(shape: tuple[int, ...]) -> int:
    """Return how many of the five scales a grid has room for: the window must fit into each."""
    window = ssim_window(shape)
    return max(n for n in range(1, len(WEIGHTS) + 1) if n == 1 or min(shape) >> (n - 1) >= window)


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
    total = sum(WEIGHTS[:scales])
    brain = whole = 1.0
    for scale, weight in enumerate(WEIGHTS[:scales]):
        ssim, cs = ssim_and_contrast(a, b, window)
        values = (ssim if scale == scales - 1 else cs)[0, 0].cpu()
        x, y, z = (slice(window // 2, side - window // 2) for side in a.shape[2:])
        chosen = inside[0, 0, x, y, z].cpu() >= 0.5
        if chosen.any():
            brain *= max(float(values[chosen].mean()), 0.0) ** (weight / total)
        whole *= max(float(values.mean()), 0.0) ** (weight / total)
        a, b, inside = (F.avg_pool3d(v, 2) for v in (a, b, inside))
    return brain, whole
