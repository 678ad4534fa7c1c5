"""How near a foreseen visit is to the one that came, and whether its interval held it."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.forecasting.methods import DRAWN, METHODS, TARGETS, Foreseen, FutureVisit, Volume
from pipeline.imaging.geometry import sample
from pipeline.imaging.ventricles import intensity_levels
from pipeline.measurement.region_intervals import RegionIntervals
from pipeline.metrics.ensembles import prediction_interval
from pipeline.metrics.intervals import mean_interval, paired_difference, share_interval
from pipeline.regions.lobes import VENTRICLES, LobeMeter

ERRORS = ("mse_brain", "ventricle_error_ml", "region_error_percent")
"""Mean squared error where the visit has brain; absolute error of the lateral ventricles; mean
absolute error of the coarse regions' tissue, in percent of the visit's."""
COVERED = ("ventricles_covered", "regions_covered", "regions_in_draws")
"""Whether the 90 % interval holds the visit's ventricles; share of the coarse regions it holds, and
share that the spread of the draws alone would hold."""
Affine = NDArray[np.float64]


def score_visit(
    visit: FutureVisit,
    foreseen: Foreseen,
    truths: dict[str, Volume],
    meter: LobeMeter,
    *,
    ways: tuple[Affine, Affine] | None = None,
    intervals: RegionIntervals | None = None,
) -> pd.DataFrame:
    """Return a row a target and method: ERRORS, COVERED (NaN without an interval), widths.

    Parameters
    ----------
    visit, foreseen
        What was foreseen, and how.
    truths
        Target (TARGETS) to the visit that came, (X, Y, Z).
    meter
        On the grid of the volumes.
    ways
        (4, 4) each: from a frame halfway between the last earlier visit and the target to the two
        visits' own, `halfway`; both sides are then resampled once. None where both lie in one.
    intervals
        Of the regions, about the mean of the draws; None takes the spread of the draws.
    """
    rows = []
    halves = {} if intervals is None else intervals.half_widths(visit.months, visit.target_month)
    for target in TARGETS:
        truth = _laid(truths[target], meter, None if ways is None else ways[1])
        mask = truth > 0
        if not mask.any():
            continue
        came = meter.measure(truth)
        last = _laid(foreseen.volumes[target]["carried_forward"], meter, ways and ways[0])
        levels = intensity_levels(last, meter.affine)
        for method, volume in foreseen.volumes[target].items():
            made = _laid(volume, meter, ways and ways[0])
            measured = meter.measure(made, levels)
            draws = [
                meter.measure(_laid(draw, meter, ways and ways[0]), levels)
                for draw in foreseen.draws[target].get(method, [])
            ]
            about = {
                "scan_id": visit.target_id, "subject_id": visit.subject_id, "target": target,
                "method": method, "gap_months": visit.gap_months, "visits": len(visit.earlier),
                "mse_brain": float(np.square(made - truth)[mask].mean()),
            }  # fmt: skip
            rows.append(about | _errors(measured, came) | _coverage(draws, came, halves))
    return pd.DataFrame(rows)


def _laid(volume: Volume, meter: LobeMeter, way: Affine | None) -> Volume:
    if way is None:
        return volume
    return sample(volume, meter.affine, way @ meter.affine, meter.grid.shape)


def _errors(made: dict[str, float], came: dict[str, float]) -> dict[str, float]:
    percent = [
        100 * abs(made[name] - ml) / ml
        for name, ml in came.items()
        if name != VENTRICLES and ml > 0
    ]
    return {
        "ventricle_error_ml": abs(made[VENTRICLES] - came[VENTRICLES]),
        "region_error_percent": float(np.mean(percent)) if percent else float("nan"),
    }


def _coverage(
    draws: list[dict[str, float]], came: dict[str, float], halves: dict[str, float]
) -> dict[str, float]:
    """Return COVERED, and the width of the ventricles' interval (ml)."""
    if not draws:
        return {}
    held, drawn, width = {}, {}, float("nan")
    for name, ml in came.items():
        values = [draw[name] for draw in draws]
        low, high = prediction_interval(values)
        drawn[name] = float(low <= ml <= high)
        if name in halves:
            middle = float(np.mean(values))
            low, high = middle - halves[name], middle + halves[name]
        held[name] = float(low <= ml <= high)
        width = high - low if name == VENTRICLES else width
    return {
        "ventricles_covered": held[VENTRICLES],
        "regions_covered": _share_of_regions(held),
        "regions_in_draws": _share_of_regions(drawn),
        "ventricles_width_ml": width,
    }


def _share_of_regions(held: dict[str, float]) -> float:
    regions = [hit for name, hit in held.items() if name != VENTRICLES]
    return float(np.mean(regions)) if regions else float("nan")


def summarise_forecasts(per_scan: pd.DataFrame) -> dict[str, Any]:
    """Return means over people with intervals.

    `all`: {target: {method: {error: Estimate}}}; `coverage`: the same of COVERED for methods that
    tell an interval; `ldae_minus`: {target: {rival: {error: Estimate}}}, paired by person; below 0
    the LDAE is nearer.
    """
    figures: dict[str, Any] = {"all": {}, "coverage": {}, "ldae_minus": {}}
    for target, rows in per_scan.groupby("target", sort=False):
        by_method = dict(list(rows.groupby("method", sort=False)))
        order = [name for name in METHODS if name in by_method]
        figures["all"][target] = {
            name: {error: _mean(by_method[name], error) for error in ERRORS} for name in order
        }
        figures["coverage"][target] = {
            name: {
                covered: share_interval(known[covered], known["subject_id"]).model_dump()
                for covered in COVERED
                if covered in rows and len(known := by_method[name].dropna(subset=[covered]))
            }
            for name in order
            if name in DRAWN
        }
        figures["ldae_minus"][target] = {
            name: _minus(by_method["ldae"], by_method[name]) for name in order if name != "ldae"
        }
    return figures


def _mean(rows: pd.DataFrame, error: str) -> dict[str, Any] | None:
    known = rows.dropna(subset=[error])
    if known.empty:
        return None
    return mean_interval(known[error], known["subject_id"], least=0).model_dump()


def _minus(ours: pd.DataFrame, rival: pd.DataFrame) -> dict[str, Any]:
    both = ours.merge(rival, on=["scan_id", "subject_id"], suffixes=("", "_rival"))
    return {
        error: paired_difference(
            known[error], known[f"{error}_rival"], known["subject_id"]
        ).model_dump()
        for error in ERRORS
        if len(known := both.dropna(subset=[error, f"{error}_rival"]))
    }
