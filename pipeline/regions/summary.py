"""Changes by region over people: means with intervals, and p-values that many regions share."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, ttest_1samp

from pipeline.metrics.intervals import mean_interval, subject_means
from pipeline.probes.multiplicity import holm
from schemas.metrics import FEWEST_SUBJECTS
from schemas.results import RegionEffect

MEASURES = ("volume_percent", "volume_ml", "intensity_percent")
"""Columns of a table of changes that are summarised; the first is tested."""


def summarise(changes: pd.DataFrame) -> dict[str, RegionEffect]:
    """Return the mean change of each region over people, with intervals and p-values.

    `changes` has `subject_id` and the columns of `meter.COLUMNS`, any number of rows a person; each
    person counts once. A region is tested on its change of volume (Student's t over people, from
    FEWEST_SUBJECTS on), and all regions of the table are one family: `p_holm` bounds the chance of
    one false region, `p_fdr` (Benjamini and Hochberg 1995) the share of false ones among those
    found.
    """
    effects = {}
    subjects = changes["subject_id"].astype(str).to_numpy()
    columns = {name: changes[name].to_numpy(np.float64) for name in (*MEASURES, "ml")}
    kinds = changes["kind"].to_numpy()
    for region, rows in changes.groupby("region", sort=False).indices.items():
        whose = subjects[rows]
        estimates = {}
        for name in MEASURES:
            values = columns[name][rows]
            if (known := np.isfinite(values)).any():
                estimates[name] = mean_interval(values[known], whose[known])
        if "volume_percent" in estimates:
            effects[str(region)] = RegionEffect(
                kind=str(kinds[rows[0]]),
                ml=float(subject_means(columns["ml"][rows], whose).mean()),
                people=len(set(whose)),
                p=_p_value(columns["volume_percent"][rows], whose),
                **estimates,
            )
    _adjust(effects.values())
    return effects


def _p_value(values: NDArray[np.float64], subjects: NDArray[np.object_]) -> float | None:
    known = np.isfinite(values)
    means = subject_means(values[known], subjects[known])
    if len(means) < FEWEST_SUBJECTS or np.ptp(means) == 0:
        return None
    return float(ttest_1samp(means, 0).pvalue)


def _adjust(effects: Iterable[RegionEffect]) -> None:
    tested = {str(i): effect for i, effect in enumerate(effects) if effect.p is not None}
    p_values = {name: effect.p for name, effect in tested.items() if effect.p is not None}
    if not p_values:
        return
    found = false_discovery_control(list(p_values.values()))
    for (name, adjusted), rate in zip(
        ((name, holm(p_values)[name]) for name in p_values), found, strict=True
    ):
        tested[name].p_holm, tested[name].p_fdr = adjusted, float(rate)


def table_of(groups: dict[str, dict[str, RegionEffect]]) -> pd.DataFrame:
    """Return a row a group and region, with limits of each measure, to be written as CSV."""
    rows = []
    for group, effects in groups.items():
        for region, effect in effects.items():
            row = {"group": group, "region": region, "kind": effect.kind, "ml": effect.ml}
            row["people"] = effect.people
            for name in MEASURES:
                estimate = getattr(effect, name)
                interval = None if estimate is None else estimate.interval
                row[name] = None if estimate is None else estimate.value
                row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
            rows.append(row | {"p": effect.p, "p_holm": effect.p_holm, "p_fdr": effect.p_fdr})
    return pd.DataFrame(rows)


def latex_of(groups: dict[str, dict[str, RegionEffect]]) -> str:
    """Return a booktabs table: a row a region, the change of volume of each group (%)."""
    cells = {
        group: {region: _cell(effect) for region, effect in effects.items()}
        for group, effects in groups.items()
    }
    table = pd.DataFrame(cells).fillna("--").rename_axis("region").reset_index()
    text: str = table.to_latex(index=False, escape=True)
    return text


def _cell(effect: RegionEffect) -> str:
    assert effect.volume_percent is not None
    interval = effect.volume_percent.interval
    ends = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    star = "*" if effect.p_holm is not None and effect.p_holm < 0.05 else ""
    return f"{effect.volume_percent.value:.2f}{ends}{star}"
