"""What forecasts learn from people seen twice: courses of y_sem, latents, voxels and regions."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cohort.subjects import spread
from pipeline.measurement.course import NOBODY, Course, fit_course
from pipeline.measurement.region_intervals import RegionIntervals, fit_region_intervals
from pipeline.probes.protocols import FIT_SPLITS
from pipeline.regions.lobes import LobeMeter
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.study.study import Study
from schemas.errors import ContractError


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The courses of people of train and val."""

    y_sem: Course
    latent: Course
    """Of standardised latents, flattened."""
    voxel_rate: NDArray[np.float32]
    """(X, Y, Z): mean change of a preprocessed volume a month, within people."""
    intervals: RegionIntervals | None = None
    """Of ventricles and coarse regions; None where too few people tell them: then those of the
    draws are taken."""


def learn(study: Study) -> Learned:
    """Learn from the people of train and val who have two dated visits.

    y_sem is out of fold where the study was cross-fitted.

    Raises
    ------
    ContractError
        If there is nobody.
    """
    scans = repeated(study.scans[study.scans["split"].isin(FIT_SPLITS)])
    if scans.empty:
        raise ContractError(f"train and val: {NOBODY}")
    scans = spread(scans, MAX_LATENTS)
    scan_ids = scans["scan_id"].astype(str).tolist()
    months = scans["months_from_first"].to_numpy(float)
    people = scans["subject_id"].astype(str).tolist()
    if study.out_of_fold is None:
        codes = study.y_sem(scan_ids).double().cpu().numpy()
    else:
        codes = np.asarray(study.typical_y_sem(scan_ids), np.float64)
    latents = study.z_0(scan_ids).flatten(1).double().cpu().numpy()
    return Learned(
        y_sem=fit_course(codes, months, people),
        latent=fit_course(latents, months, people),
        voxel_rate=_voxel_rate(study, scans),
        intervals=_intervals(study, scan_ids, months, people),
    )


def _intervals(
    study: Study, scan_ids: list[str], months: NDArray[np.float64], people: list[str]
) -> RegionIntervals | None:
    meter = LobeMeter(study.models.autoencoder.grid)
    measures = [
        meter.measure(study.volumes.load_unit_interval([scan])[0, 0].numpy()) for scan in scan_ids
    ]
    try:
        return fit_region_intervals(measures, months, people)
    except ContractError:
        return None


def repeated(scans: pd.DataFrame) -> pd.DataFrame:
    """Return the dated scans of people with two different months or more, in order, one a month."""
    dated = scans[scans["months_from_first"].notna()]
    dated = dated.sort_values(["subject_id", "months_from_first", "scan_id"])
    dated = dated.drop_duplicates(["subject_id", "months_from_first"])
    visits = dated.groupby("subject_id")["scan_id"].transform("count")
    return dated[visits > 1]


def _voxel_rate(study: Study, scans: pd.DataFrame) -> NDArray[np.float32]:
    squares = 0.0
    products = np.zeros(study.volumes.attributes.grid.shape, np.float64)
    for _, own in scans.groupby("subject_id"):
        months = own["months_from_first"].to_numpy(float)
        away = months - months.mean()
        squares += float(away @ away)
        for scan_id, weight in zip(own["scan_id"].astype(str), away, strict=True):
            products += weight * study.volumes.load_unit_interval([scan_id])[0, 0].numpy()
    return np.asarray(products / max(squares, 1e-12), np.float32)
