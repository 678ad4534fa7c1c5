"""What the scanner does to the numbers of a scan: how well it is read, and its share of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.measurement.distances import distances_within
from pipeline.measurement.repeat_scans import (
    Repeats,
    complete_repeats,
    named_repeats,
    scans_with_site,
    visit_names,
)
from pipeline.measurement.site_reading import read_site
from pipeline.metrics.agreement import FEWEST, icc_agreement, icc_of_each
from pipeline.metrics.variance_components import PARTS, variance_components
from schemas.evaluation import ProbeParams
from schemas.results import AgreementSummary, ScannerMetrics

GOOD_ICC = 0.75
"""Agreement that is called good (Koo and Li 2016, J. Chiropractic Medicine 15)."""
Y_SEM = "y_sem"

Features = Mapping[str, NDArray[np.floating]]


@dataclass(slots=True)
class ScannerReport:
    """Figures, and a table of the numbers of y_sem."""

    metrics: ScannerMetrics
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row a number of y_sem: its components (`variance_components.PARTS`) and its ICC."""


def judge_scanners(
    features: Features,
    table: pd.DataFrame,
    params: ProbeParams,
    *,
    column: str,
    repeats: Path | None = None,
    predictions: pd.DataFrame | None = None,
) -> ScannerReport:
    """Return how much of the features (scan, dim) of the table's scans is their scanner's.

    Parameters
    ----------
    features
        Feature set to numbers of each row of `table`; `y_sem` among them.
    table
        Rows of the manifest.
    column
        Names the site of each scan.
    repeats
        A table of repeats (`repeat_scans.REPEAT_COLUMNS`); without it, scans of one person at one
        month are repeats.
    predictions
        Those of the probe stage, for the agreement of what it predicts.

    Raises
    ------
    ContractError
        If the column names fewer than two sites, or the table of repeats cannot be read.
    """
    numbered = table.reset_index(drop=True).assign(row=np.arange(len(table)))
    named, lines = scans_with_site(numbered, column)
    rows = named["row"].to_numpy()
    sets = {name: np.asarray(values)[rows] for name, values in features.items()}
    person, site = (named[name].to_numpy(dtype=str) for name in ("subject_id", "site"))
    visit = visit_names(named)
    if repeats is not None:
        visit, faults = named_repeats(repeats, named, visit)
        lines += faults
    found = complete_repeats(named, visit)
    metrics = ScannerMetrics(
        column=column,
        scans=len(named),
        training_scans=int((named["split"] == "train").sum()),
        people={str(s): int(n) for s, n in named.groupby("site")["subject_id"].nunique().items()},
        repeated_people=0 if found is None else len(found.people),
        remarks=lines,
    )
    for name, values in sets.items():
        _judge_set(metrics, name, values, person, visit, site, params)
    numbers = _numbers(metrics, sets[Y_SEM], person, visit, site, found)
    if found is None:
        metrics.skipped["agreement"] = "no two scans of one visit on different sites"
    elif predictions is not None:
        _judge_predictions(metrics, predictions, named, found)
    return ScannerReport(metrics, numbers)


def _judge_set(
    metrics: ScannerMetrics,
    name: str,
    values: NDArray[np.floating],
    person: NDArray[np.str_],
    visit: NDArray[np.str_],
    site: NDArray[np.str_],
    params: ProbeParams,
) -> None:
    """Add what one feature set tells of sites."""
    try:
        metrics.reading[name] = read_site(
            values,
            site,
            person,
            folds=params.folds,
            permutations=params.permutations,
            seed=params.seed,
        )
    except ValueError as error:
        metrics.skipped[f"reading/{name}"] = f"site from {name}: {error}"
    try:
        components = variance_components(values, person=person, visit=visit, site=site)
        metrics.shares[name] = components.shares
    except ValueError as error:
        metrics.skipped[f"shares/{name}"] = f"{name}: {error}"
    figures = distances_within(values, person=person, visit=visit, site=site)
    if figures:
        metrics.distances[name] = figures


def _numbers(
    metrics: ScannerMetrics,
    y_sem: NDArray[np.floating],
    person: NDArray[np.str_],
    visit: NDArray[np.str_],
    site: NDArray[np.str_],
    repeats: Repeats | None,
) -> pd.DataFrame:
    """Return a row a number of y_sem; add the summary of their agreement."""
    numbers = pd.DataFrame({"number": np.arange(y_sem.shape[1])})
    if Y_SEM in metrics.shares:
        each = variance_components(y_sem, person=person, visit=visit, site=site).each
        for part in PARTS:
            if part in each:
                numbers[part] = each[part]
    if repeats is None:
        return numbers
    if len(repeats.people) < FEWEST:
        count = len(repeats.people)
        metrics.skipped["agreement"] = f"{count} people with repeated scans; {FEWEST} are needed"
        return numbers
    numbers["icc"] = icc_of_each(y_sem[repeats.rows])
    known = numbers["icc"].dropna().to_numpy()
    if len(known):
        low, middle, high = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75)))
        metrics.agreement = AgreementSummary(
            quartiles=(low, middle, high),
            good=float((known > GOOD_ICC).mean()),
            people=len(repeats.people),
            occasions=list(repeats.occasions),
        )
    return numbers


def _judge_predictions(
    metrics: ScannerMetrics, predictions: pd.DataFrame, table: pd.DataFrame, repeats: Repeats
) -> None:
    """Add the agreement of what the probe on y_sem predicts, by people left out of its fits."""
    scan_ids = table["scan_id"].to_numpy(dtype=str)
    ours = predictions[predictions["feature_set"] == Y_SEM]
    for target, of_target in ours.groupby("target", sort=False):
        # Out of fold where there is such a prediction: it judges more people than `test`.
        protocol = "cv" if (of_target["protocol"] == "cv").any() else "test"
        chosen = of_target[of_target["protocol"] == protocol]
        score = chosen.groupby("scan_id")["score"].mean().reindex(scan_ids).to_numpy()
        scores = score[repeats.rows]
        known = scores[np.isfinite(scores).all(axis=1)]
        try:
            metrics.predictions[str(target)] = icc_agreement(known)
        except ValueError as error:
            metrics.skipped[f"predictions/{target}"] = f"predicted {target}: {error}"
