"""How close a reconstruction is to its reference, and whether an inverted noise is noise.

Shapes: B scans, C channels, X Y Z voxels.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.diffusion.health import latent_health as latent_health
from pipeline.evaluation.intervals import mean_interval

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
PSNR_CEILING_DB = 100.0

RECONSTRUCTION_METRICS = (
    "ssim_brain",
    "ssim_whole",
    "psnr_brain",
    "mse_brain",
    "mae_brain",
    "mse_whole",
)
"""Columns of `reconstruction_metrics`; psnr in dB, mse and mae on intensities in [0, 1]."""


def ssim_window(shape: tuple[int, ...]) -> int:
    """Return the side of the SSIM window (voxels, odd): 11, or about half a small grid's side."""
    half = max(3, min(shape) // 2)
    return min(SSIM_WINDOW, half if half % 2 else half - 1)


def reconstruction_metrics(
    reference: Float[Tensor, "B 1 X Y Z"],
    prediction: Float[Tensor, "B 1 X Y Z"],
    mask: Bool[Tensor, "B 1 X Y Z"],
) -> pd.DataFrame:
    """Return one row a scan with the columns of RECONSTRUCTION_METRICS.

    Intensities are in [0, 1]; predictions are clipped to that range first, as they are when
    written. SSIM (Wang et al. 2004) is 3D with a Gaussian window of 11 voxels, sigma 1.5 and data
    range 1; it equals MONAI's. Window and sigma shrink together on grids with a side below 22
    voxels.

    The map has a value only where the whole window lies inside the grid: its voxel i belongs
    to voxel i + window // 2 of the volume. `ssim_whole` is the mean of that map, MONAI's own
    figure. `ssim_brain` is its mean over the mask cropped by window // 2 on each side, so a mask
    voxel nearer to the border than that is left out. PSNR is at most 100 dB.

    Raises
    ------
    ValueError
        If the shapes differ, a side is below 3 voxels, or a mask is empty after the crop.
    """
    if not reference.shape == prediction.shape == mask.shape:
        raise ValueError(
            f"reference {tuple(reference.shape)}, prediction {tuple(prediction.shape)} and mask "
            f"{tuple(mask.shape)}: expected one shape"
        )
    spatial = tuple(reference.shape[2:])
    if min(spatial) < 3:
        raise ValueError(f"grid {spatial}: SSIM needs at least 3 voxels a side")
    window = ssim_window(spatial)
    x, y, z = (slice(window // 2, side - window // 2) for side in spatial)
    inside = mask[:, 0, x, y, z]
    for row in torch.nonzero(~inside.flatten(1).any(dim=1)).flatten().tolist():
        raise ValueError(f"scan {row} of the batch: mask is empty away from the grid's border")

    rows = []
    # One scan at a time: SSIM holds five maps, and a batch of them is what runs out of memory.
    for i in range(len(reference)):
        truth, guess = reference[i].float(), prediction[i].float().clamp(0, 1)
        ssim = ssim_and_contrast(truth[None], guess[None], window)[0][0, 0]
        error = guess - truth
        brain_error = error[mask[i]]
        mse_brain = float(brain_error.square().mean())
        rows.append(
            {
                "ssim_brain": float(ssim[inside[i]].mean()),
                "ssim_whole": float(ssim.mean()),
                "psnr_brain": _psnr(mse_brain),
                "mse_brain": mse_brain,
                "mae_brain": float(brain_error.abs().mean()),
                "mse_whole": float(error.square().mean()),
            }
        )
    return pd.DataFrame(rows, columns=list(RECONSTRUCTION_METRICS))


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


def _psnr(mse: float) -> float:
    return min(PSNR_CEILING_DB, -10 * float(np.log10(mse))) if mse > 0 else PSNR_CEILING_DB


def summarise_reconstruction(per_scan: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {method: {metric: Estimate as a dict}}, means over subjects with intervals.

    `per_scan` has one row a scan and method: scan_id, subject_id, method, and any columns of
    RECONSTRUCTION_METRICS, and lpips. Methods keep the order in which they first appear.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for method, rows in per_scan.groupby("method", sort=False):
        subjects = rows["subject_id"].to_numpy()
        table[str(method)] = {
            metric: mean_interval(rows[metric].to_numpy(dtype=float), subjects).model_dump()
            for metric in (*RECONSTRUCTION_METRICS, "lpips")
            if metric in rows and rows[metric].notna().all()
        }
    return table
