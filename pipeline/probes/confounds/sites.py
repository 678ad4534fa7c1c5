"""Which scanner or site each scan is from, and a warning where that alone tells a label."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.verdicts import chance_doubt
from schemas.manifest import SITE_COLUMNS
from schemas.results import PROTOCOLS, FiguresOfTargets, Protocol, TargetResult

SITE: Literal["site"] = "site"
"""The feature set: a column of 0 and 1 for each site."""
UNKNOWN = ""


def site_column(table: pd.DataFrame) -> str | None:
    """Return the column of the manifest that names sites, or None."""
    return next((name for name in SITE_COLUMNS if name in table), None)


def site_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """Return the site of each scan (scan,), UNKNOWN where the table names none."""
    column = site_column(table)
    if column is None:
        return np.full(len(table), UNKNOWN)
    names = table[column].astype(object).where(table[column].notna(), UNKNOWN)
    return names.map(lambda cell: f"{cell:g}" if isinstance(cell, float) else str(cell)).to_numpy(
        dtype=str
    )


def site_warnings(
    figures: Mapping[Protocol, FiguresOfTargets], targets: Mapping[str, TargetResult]
) -> dict[str, str]:
    """Return a sentence for each target that the site alone reads better than chance.

    By interval and permutation test, in whichever protocol shows it.
    """
    found = {}
    for name, about in targets.items():
        metric, word = ("roc_auc", "ROC-AUC") if about.classes else ("mae", "MAE")
        for protocol in PROTOCOLS:
            one = figures[protocol].get(name, {}).get(SITE, {})
            if metric not in one or chance_doubt(one, about, protocol, feature_set=SITE):
                continue
            figure = one[metric]
            ends = figure.interval
            interval = "" if ends is None else f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
            found[f"{SITE}/{name}"] = (
                f"{name}: the site alone reads it better than chance ({word} {figure.value:.2f}"
                f"{interval}), so what reads {name} may be reading the site; look at the figures"
                " within sites and of sites left out"
            )
    return found
