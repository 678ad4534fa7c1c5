"""The visits that a forecast starts from, and the course of the people that it learns from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.applications.scan_names import is_image
from pipeline.cohort.manifest import read_manifest
from pipeline.cohort.subjects import spread
from pipeline.measurement.course import Course, fit_course
from pipeline.measurement.region_intervals import RegionIntervals, fit_region_intervals
from pipeline.models.inference import LdaeInference
from pipeline.probes.protocols import FIT_SPLITS
from pipeline.regions.lobes import LobeMeter
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError, ParamsError

MOST_MEASURED = 120
"""Scans whose regions are measured for the intervals, spread over people."""
Slope = Literal["auto", "own", "population"]
"""`auto`: the person's own where there are several visits, drawn towards the population's."""


def course_of(semantics: Path, manifest: Path, models: LdaeInference) -> Course:
    """Fit the course of y_sem to the manifest's people of train and val who were seen twice.

    Raises
    ------
    ContractError
        If the store is of another LDAE, or nobody in it has two visits at different months.
    """
    store = OpenStore(semantics, kind="semantics")
    if store.attributes.digests.get("ldae") != models.ldae.digest:
        raise ContractError(f"{semantics}: y_sem of another LDAE than --ldae; run `pipeline embed`")
    table = read_manifest(manifest)
    table = table[table["split"].isin(FIT_SPLITS) & table["scan_id"].isin(store.row_of)]
    rows = [store.row_of[str(scan)] for scan in table["scan_id"]]
    if not rows:
        raise ContractError(f"{semantics}: holds no scan of train or val of {manifest}")
    try:
        return fit_course(
            np.asarray(store.read("y_sem")[rows], dtype=np.float64),
            table["months_from_first"].to_numpy(float),
            table["subject_id"].astype(str).tolist(),
        )
    except ContractError as error:
        raise ContractError(f"{manifest}, train and val: {error}") from error


def intervals_of(volumes: VolumeStore | None, manifest: Path) -> RegionIntervals | None:
    """Return how far regions went from what was foreseen, in people of train and val.

    None without their volumes, or where too few of them were seen twice.
    """
    if volumes is None:
        return None
    table = read_manifest(manifest)
    table = table[table["split"].isin(FIT_SPLITS) & table["scan_id"].isin(volumes.row_of)]
    table = table[table["months_from_first"].notna()].sort_values(["subject_id", "scan_id"])
    twice = table.groupby("subject_id")["months_from_first"].transform("nunique") > 1
    table = spread(table[twice], MOST_MEASURED)
    if table.empty:
        return None
    meter = LobeMeter(volumes.attributes.grid)
    measures = [
        meter.measure(volumes.load_unit_interval([str(scan)])[0, 0].numpy())
        for scan in table["scan_id"]
    ]
    months = table["months_from_first"].to_numpy(float)
    try:
        return fit_region_intervals(measures, months, table["subject_id"].astype(str).tolist())
    except ContractError:
        return None


def ordered_visits(names: Sequence[str], manifest: Path, slope: Slope) -> list[float]:
    """Return the months of the visits that a forecast starts from, the last one's at the end.

    One visit may be an image file, or have no month. With `slope` `population` of several visits
    the last alone is needed.

    Raises
    ------
    ParamsError
        If several visits hold an image file, or `own` is asked of one visit.
    ContractError
        If a visit is not in the manifest or has no month, or the visits are of different people,
        out of order or on one day.
    """
    if slope == "own" and len(names) < 2:
        raise ParamsError("--slope own: one visit given, two are needed; repeat --scan")
    if len(names) == 1:
        return [0.0]
    images = [name for name in names if is_image(name)]
    if images:
        raise ParamsError(
            f"--input {images[0]}: an image has no month; several visits are scans of the manifest"
        )
    table = read_manifest(manifest).set_index("scan_id")
    months: list[float] = []
    for name in names:
        months.append(_month(table, name, manifest))
        subjects = [str(table["subject_id"].loc[scan]) for scan in names[: len(months)]]
        if subjects[-1] != subjects[0]:
            raise ContractError(
                f"{name}: of {subjects[-1]}, {names[0]} of {subjects[0]}; expected visits of one"
                " person"
            )
        if len(months) > 1 and months[-1] == months[-2]:
            raise ContractError(
                f"{name}: on one day with {names[len(months) - 2]} (month {months[-1]:g}); give one"
            )
        if len(months) > 1 and months[-1] < months[-2]:
            raise ContractError(
                f"{name}: of month {months[-1]:g}, before {names[len(months) - 2]} of month"
                f" {months[-2]:g}; give visits in order"
            )
    return months


def visits_of(subject: str, manifest: Path, known: Sequence[str]) -> list[str]:
    """Return a person's dated scans among the known ones, in order, one a month.

    Raises
    ------
    ContractError
        If there is none.
    """
    table = read_manifest(manifest)
    own = table[(table["subject_id"] == subject) & table["scan_id"].isin(known)]
    own = own[own["months_from_first"].notna()].sort_values(["months_from_first", "scan_id"])
    own = own.drop_duplicates("months_from_first")
    if own.empty:
        raise ContractError(f"{manifest}: no dated scan of {subject} in --latents; give --scan")
    return own["scan_id"].astype(str).tolist()


def beyond_seen(months: Sequence[float], course: Course) -> str | None:
    """Return a line where a month lies further than anybody was followed."""
    far = max(months)
    if far <= course.longest_months:
        return None
    return (
        f"{far:g} months: the {course.people} people that the forecast learned from were followed"
        f" for {course.longest_months:g} months at most; what lies beyond is extrapolated"
    )


def _month(table: pd.DataFrame, name: str, manifest: Path) -> float:
    if name not in table.index:
        raise ContractError(f"{manifest}: {name} is not in it; several visits need their months")
    month = float(table["months_from_first"].loc[name])
    if not np.isfinite(month):
        raise ContractError(
            f"{manifest}: months_from_first of {name} is empty; give dated visits, or one alone"
        )
    return month
