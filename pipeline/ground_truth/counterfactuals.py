"""Score made counterfactuals against the true ones, beside plainer ways to make them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pipeline.ground_truth.phantom_pairs import TruePair
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml
from pipeline.metrics.intervals import mean_interval, paired_difference, share_interval
from pipeline.metrics.reconstruction import ReconstructionScorer, lowest
from pipeline.models.inference import LdaeInference
from pipeline.regions.meter import Before, RegionMeter

Volume = Float[np.ndarray, "X Y Z"]

NO_CHANGE = "no_change"
"""The decoded scan as it is: what a counterfactual must be nearer to the truth than."""
OURS = "ldae"
ERRORS = ("mse_brain", "ssim_brain", "ventricle_error_ml", "region_error_percent")
"""Measures that are compared between methods, paired by person and change."""
MOST = 3
"""Regions, those that truly change most, that are looked for among those found to change most."""


def score_pair(
    models: LdaeInference,
    pair: TruePair,
    made: Mapping[str, Volume],
    meter: RegionMeter | None = None,
) -> pd.DataFrame:
    """Return a row a method: how close what it made is to the true counterfactual.

    The target is what the autoencoder makes of the truth, so that its blur is on both sides.
    `asked_ml` and `given_ml` are the change of the ventricles in target and in what was made, both
    from the decoded scan. With a `meter`, `region_error_percent` is the mean absolute error of the
    regions' change of volume and `found_most` the share of the MOST regions.

    Parameters
    ----------
    models
        The autoencoder whose latents were moved.
    pair
        The person and the truth.
    made
        Method to volume (X, Y, Z) in [0, 1]; NO_CHANGE is the decoded scan, and is needed.
    meter
        For changes by region, a deformation (seconds) a method.
    """
    affine = np.asarray(models.autoencoder.grid.affine, dtype=np.float64)
    own = made[NO_CHANGE]
    target = _decoded(models, pair.truth)
    levels = intensity_levels(own, affine)
    own_ml, target_ml = (ventricle_ml(v, affine, levels=levels) for v in (own, target))
    scorer = ReconstructionScorer(_tensor(target), _tensor(pair.truth) > 0)
    known = None if meter is None else meter.known_of(own)
    true_growth = None
    if known is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            held = known.regions.multiply((pair.own > 0).ravel()[None]).tocsr()
            true_growth = (held @ pair.volume_percent.ravel()) / np.asarray(
                held.sum(axis=1)
            ).ravel()
    rows = []
    for method, volume in made.items():
        made_ml = ventricle_ml(volume, affine, levels=levels)
        row: dict[str, Any] = {"subject_id": pair.subject_id, "change": pair.change}
        row |= {"method": method} | scorer.score(_tensor(volume))
        row |= {"ventricle_error_ml": abs(made_ml - target_ml)}
        row |= {"asked_ml": target_ml - own_ml, "given_ml": made_ml - own_ml}
        if meter is not None and known is not None and true_growth is not None:
            row |= _by_region(meter, own, volume, known, true_growth)
        rows.append(row)
    return pd.DataFrame(rows)


def _by_region(
    meter: RegionMeter, own: Volume, volume: Volume, known: Before, true_growth: np.ndarray
) -> dict[str, float]:
    table = meter.change(own, volume, known=known).table
    by_name = table[table["kind"] == "atlas"].set_index("region")["volume_percent"]
    found = by_name.reindex(meter.parcellation.names()).to_numpy()
    measured = np.isfinite(found) & np.isfinite(true_growth)
    truth, found = true_growth[measured], found[measured]
    most, told = (set(np.argsort(-np.abs(values))[:MOST].tolist()) for values in (truth, found))
    together = np.ptp(found) > 0 and np.ptp(truth) > 0
    return {
        "region_error_percent": float(np.abs(found - truth).mean()),
        "region_correlation": float(np.corrcoef(truth, found)[0, 1]) if together else 0.0,
        "found_most": len(most & told) / MOST,
    }


def summarise_pairs(rows: pd.DataFrame) -> dict[str, Any]:
    """Return figures of each method with intervals over people.

    `methods`: method to the mean of each error, to `calibration` (the slope of given on asked
    millilitres through 0, a person) and to `found_most`. `minus`: rival to the paired difference of
    `ldae` minus it, for each error; below 0 `ldae` is nearer the truth (for SSIM above 0).
    """
    errors = [name for name in ERRORS if name in rows]
    methods: dict[str, Any] = {}
    for method, own in rows.groupby("method", sort=False):
        figures = {
            name: mean_interval(
                own.loc[known, name], own.loc[known, "subject_id"], least=lowest(name)
            )
            for name in errors
            if (known := own[name].notna()).any()
        }
        slopes = own.groupby("subject_id")[["asked_ml", "given_ml"]].apply(_slope).dropna()
        if len(slopes):
            figures["calibration"] = mean_interval(slopes, slopes.index)
        if "found_most" in own and (told := own.dropna(subset=["found_most"])).size:
            figures["found_most"] = share_interval(told["found_most"], told["subject_id"])
        methods[str(method)] = {name: figure.model_dump() for name, figure in figures.items()}
    minus = {
        rival: {name: _difference(rows, name, rival) for name in errors if name in methods[rival]}
        for rival in methods
        if rival != OURS and OURS in methods
    }
    return {"methods": methods, "minus": minus, "people": int(rows["subject_id"].nunique())}


def _difference(rows: pd.DataFrame, name: str, rival: str) -> dict[str, Any]:
    keys = ["subject_id", "change"]
    wide = rows.pivot_table(index=keys, columns="method", values=name)[[OURS, rival]].dropna()
    people = wide.index.get_level_values("subject_id").to_numpy()
    return paired_difference(wide[OURS], wide[rival], people).model_dump()


def _slope(of_person: pd.DataFrame) -> float:
    asked, given = of_person["asked_ml"].to_numpy(), of_person["given_ml"].to_numpy()
    return float(asked @ given / (asked @ asked)) if asked.any() else float("nan")


def _decoded(models: LdaeInference, volume: Volume) -> Volume:
    decoded: Volume = models.decode(models.encode(_tensor(volume)[None]))[0].numpy()
    return decoded


def _tensor(volume: Volume) -> torch.Tensor:
    return torch.from_numpy(np.asarray(volume, dtype=np.float32))
