"""How a measure follows the scale of a manipulation."""

import numpy as np
from scipy.stats import spearmanr


def spearman(scale: np.ndarray, measure: np.ndarray) -> float:
    """Return the rank correlation; 0 where either does not change."""
    if np.ptp(scale) == 0 or np.ptp(measure) == 0:
        return 0.0
    return float(spearmanr(scale, measure).statistic)


def slope(scale: np.ndarray, measure: np.ndarray) -> float:
    """Return the least-squares slope; 0 where the scale does not change."""
    centred = scale - scale.mean()
    return float(centred @ measure / (centred @ centred)) if centred.any() else 0.0
