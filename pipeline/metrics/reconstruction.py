"""Error and similarity of a reconstruction and its reference, in the brain and over the volume."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.metrics.intervals import mean_interval
from pipeline.metrics.ssim import SsimReference, ssim_window

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


def lowest(name: str) -> float:
    """Return the lowest value that a figure of this name can have: 0 for an error."""
    return 0.0 if name.startswith(("mse", "mae", "lpips")) or "error" in name else -np.inf


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
    rows = []
    # One scan at a time: SSIM holds five maps, and a batch of them is what runs out of memory.
    for i in range(len(reference)):
        try:
            scorer = ReconstructionScorer(reference[i, 0], mask[i, 0])
        except ValueError as error:
            raise ValueError(f"scan {i} of the batch: {error}") from error
        rows.append(scorer.score(prediction[i, 0]))
    return pd.DataFrame(rows, columns=list(RECONSTRUCTION_METRICS))


class ReconstructionScorer:
    """Compares predictions of one scan with it; what concerns the scan alone is computed once.

    Raises
    ------
    ValueError
        If the mask is empty away from the border of the grid.
    """

    def __init__(self, reference: Float[Tensor, "X Y Z"], mask: Bool[Tensor, "X Y Z"]) -> None:
        self.reference, self.mask = reference.float(), mask
        window = ssim_window(tuple(reference.shape))
        x, y, z = (slice(window // 2, side - window // 2) for side in reference.shape)
        self.inside = mask[x, y, z]
        if not self.inside.any():
            raise ValueError("mask is empty away from the grid's border")
        self.ssim = SsimReference(self.reference[None, None], window)

    def score(self, prediction: Float[Tensor, "X Y Z"]) -> dict[str, float]:
        """Return {name: figure} of RECONSTRUCTION_METRICS."""
        guess = prediction.float().clamp(0, 1)
        ssim = self.ssim.compare(guess[None, None])[0][0, 0]
        error = guess - self.reference
        brain_error = error[self.mask]
        mse_brain = float(brain_error.square().mean())
        return {
            "ssim_brain": float(ssim[self.inside].mean()),
            "ssim_whole": float(ssim.mean()),
            "psnr_brain": psnr(mse_brain),
            "mse_brain": mse_brain,
            "mae_brain": float(brain_error.abs().mean()),
            "mse_whole": float(error.square().mean()),
        }


def psnr(mse: float) -> float:
    """Return the peak signal-to-noise ratio (dB) of a mean squared error; peak 1, at most 100."""
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
            metric: mean_interval(
                rows[metric].to_numpy(dtype=float), subjects, least=lowest(metric)
            ).model_dump()
            for metric in (*RECONSTRUCTION_METRICS, "lpips")
            if metric in rows and rows[metric].notna().all()
        }
    return table
