"""Does moving y_sem move the brain? Scores and ventricles against the scale, a scan at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from pipeline.applications.manipulate import manipulate
from pipeline.applications.models import Models
from pipeline.evaluation.directions import SavedDirection
from pipeline.evaluation.ventricles import brain_median, ventricle_box, ventricle_ml

MEASURES = ("score", "ventricle_ml")


def dose_response(
    models: Models,
    z_0: Float[Tensor, "1 C X Y Z"],
    direction: SavedDirection,
    scales: Sequence[float],
) -> pd.DataFrame:
    """Return one row a scale of one scan.

    Columns
    -------
    scale
        As given, in standard deviations along the direction.
    score
        Where the *made volume* lies along the direction once it is encoded and embedded again.
    ventricle_ml
        Fluid in the ventricle box of the made volume.
    identity
        Correlation with the scan's decoded latent, inside its brain and outside the box.
    """
    outcome = manipulate(models, z_0, direction, scales)
    volumes = outcome.volumes.numpy()
    own = models.decode(z_0)[0].numpy()
    affine = np.asarray(models.autoencoder.grid["affine"], dtype=np.float64)
    median = brain_median(own)
    kept = (own > 0.1) & ~ventricle_box(own.shape, affine)
    y_sem = models.embed(models.encode(outcome.volumes)).double().cpu().numpy()
    return pd.DataFrame(
        {
            "scale": list(scales),
            "score": direction.position(y_sem),
            "ventricle_ml": [ventricle_ml(v, affine, median=median) for v in volumes],
            "identity": [float(np.corrcoef(own[kept], v[kept])[0, 1]) for v in volumes],
        }
    )


def summarise_dose(responses: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return, for each measure, the median Spearman correlation with the scale over scans.

    `responses` has the columns of `dose_response` and scan_id. `rising` is the share of scans
    whose measure rises with the scale. A scan whose measure never changes counts as 0.
    """
    summary = {}
    for measure in MEASURES:
        monotonic = pd.Series(
            {
                scan: spearman(rows["scale"].to_numpy(float), rows[measure].to_numpy(float))
                for scan, rows in responses.groupby("scan_id")
            }
        )
        summary[measure] = {
            "spearman_median": float(monotonic.median()),
            "rising": float((monotonic > 0).mean()),
            "scans": len(monotonic),
        }
    return summary


def spearman(scale: np.ndarray, measure: np.ndarray) -> float:
    """Return the rank correlation; 0 where either does not change."""
    if np.ptp(scale) == 0 or np.ptp(measure) == 0:
        return 0.0
    return float(spearmanr(scale, measure).statistic)
