"""How far apart scans of one person are, in units of how far apart people are."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from pipeline.metrics.intervals import exact_share, mean_interval
from schemas.metrics import Estimate

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]


def distances_within(
    features: NDArray[np.floating], *, person: Labels, visit: Labels, site: Labels
) -> dict[str, Estimate]:
    """Return distances within people over that to other people on the same site, and recognition.

    Euclidean distances of features (scan, dim). `repeat`: same visit, another site; `visit`:
    another visit, same site; each the mean over people. A person's unit is the median distance of
    the first of the two scans to those of others on its site. `recognised`: the share of people
    whose first repeat on another site is nearer to their own scan than the scans of all others on
    that other site are. Figures that no pair of scans gives are left out.
    """
    x = np.asarray(features, dtype=np.float64)
    apart = cdist(x, x)
    rows: list[tuple[str, str, float]] = []
    hits: dict[str, bool] = {}
    for first, second in zip(*np.triu_indices(len(x), 1), strict=True):
        if person[first] != person[second]:
            continue
        same_visit, same_site = visit[first] == visit[second], site[first] == site[second]
        if same_visit == same_site:
            continue
        others = (person != person[first]) & (site == site[first])
        if not others.any():
            continue
        unit, who = float(np.median(apart[first, others])), str(person[first])
        kind = "repeat" if same_visit else "visit"
        rows.append((kind, who, float(apart[first, second]) / unit))
        there = (person != person[first]) & (site == site[second])
        if same_visit and who not in hits and there.any():
            hits[who] = bool(apart[first, second] < apart[first, there].min())
    figures = {
        str(kind): mean_interval(pairs["ratio"], pairs["person"], least=0)
        for kind, pairs in pd.DataFrame(rows, columns=["kind", "person", "ratio"]).groupby("kind")
    }
    if hits:
        figures["recognised"] = exact_share(list(hits.values()))
    return figures
