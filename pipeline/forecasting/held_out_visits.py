"""The part of the evaluation that forecasts held-out last visits."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.forecasting.learned import Learned, learn, repeated
from pipeline.forecasting.methods import Foreseen, FutureVisit, foresee
from pipeline.forecasting.scores import Affine, score_visit, summarise_forecasts
from pipeline.imaging.halfway import halfway
from pipeline.regions.lobes import LobeMeter
from pipeline.runtime.progress import Progress
from pipeline.study.study import EXAMPLES, Part, Study, levels
from schemas.errors import ContractError

INTERVALS = {
    True: "regions' own course in people seen twice, split-conformal",
    False: "spread of the draws; fewer than three people seen twice",
}


def evaluate_forecast(study: Study) -> Part:
    """Forecast the last visit of judged people from those before; `skipped` where there is none."""
    params = study.params.forecast
    if not params.max_people:
        return Part(metrics={"skipped": "evaluate.forecast.max_people is 0"})
    judged = repeated(study.judged)
    if judged.empty:
        reason = f"no subject of the {study.params.split} split has two dated visits"
        return Part(metrics={"skipped": reason})
    try:
        learned = learn(study)
    except ContractError as error:
        return Part(metrics={"skipped": str(error)})
    people = judged["subject_id"].drop_duplicates().head(params.max_people)
    meter = LobeMeter(study.models.autoencoder.grid)
    tables: list[pd.DataFrame] = []
    pictures: dict[str, list[Any]] = {}
    with Progress("forecast", total=len(people)) as bar:
        for subject in people:
            visit = _visit_of(study, judged[judged["subject_id"] == subject])
            target = study.open_scan(visit.target_id)
            assert target.volume is not None
            foreseen = foresee(
                study.models, visit, learned, draws=params.draws, seed=study.params.seed
            )
            shown = study.models.decode(target.z_0)[0].numpy()
            truths = {"scan": target.volume, "decoded": shown}
            ways = ways_between(study, visit.earlier[-1].scan_id, visit.target_id)
            tables.append(
                score_visit(visit, foreseen, truths, meter, ways=ways, intervals=learned.intervals)
            )
            if len(pictures.get("scan_id", [])) < EXAMPLES:
                _keep_example(pictures, visit, foreseen, truths["scan"])
            bar.advance()
    per_scan = pd.concat(tables, ignore_index=True)
    if per_scan.empty:
        return Part(metrics={"skipped": "no visit lies in one frame with the one before it"})
    stacked = {name: np.stack(values) for name, values in pictures.items()}
    return Part(
        metrics=_about(per_scan, learned, params.draws) | summarise_forecasts(per_scan),
        per_scan=per_scan,
        pictures=stacked,
    )


def ways_between(study: Study, first: str, second: str) -> tuple[Affine, Affine] | None:
    """Return the ways from the frame halfway between two scans to their own.

    None where registration was non-linear: the stored affines are not the whole way there.
    """
    if study.volumes.attributes.params.get("preprocess", {}).get("registration") == "syn":
        return None
    rows = [study.volumes.read_row(study.volumes.row_of[scan]) for scan in (first, second)]
    to_first, to_second, _ = halfway(rows[0].native_to_mni, rows[1].native_to_mni)
    return to_first, to_second


def _visit_of(study: Study, own: pd.DataFrame) -> FutureVisit:
    months = own["months_from_first"].astype(float).tolist()
    scan_ids = own["scan_id"].astype(str).tolist()
    return FutureVisit(
        subject_id=str(own["subject_id"].iloc[0]),
        earlier=[study.open_scan(scan) for scan in scan_ids[:-1]],
        months=months[:-1],
        target_id=scan_ids[-1],
        target_month=months[-1],
    )


def _about(per_scan: pd.DataFrame, learned: Learned, draws: int) -> dict[str, Any]:
    visits = per_scan.drop_duplicates("scan_id")
    beyond = int((visits["gap_months"] > learned.y_sem.longest_months).sum())
    return {
        "people": len(visits),
        "draws": draws,
        "fitted_people": learned.y_sem.people,
        "longest_months_seen": learned.y_sem.longest_months,
        "beyond_seen": beyond,
        "gap_months": [float(visits["gap_months"].min()), float(visits["gap_months"].max())],
        "with_two_earlier": int((visits["visits"] > 1).sum()),
        "interval": INTERVALS[learned.intervals is not None],
    }


def _keep_example(
    pictures: dict[str, list[Any]], visit: FutureVisit, foreseen: Foreseen, came: Any
) -> None:
    pictures.setdefault("scan_id", []).append(np.asarray(visit.target_id))
    pictures.setdefault("gap_months", []).append(np.asarray(visit.gap_months))
    spread = np.std(foreseen.draws["scan"]["ldae"], axis=0, ddof=1)
    made = foreseen.volumes["scan"]
    shown = {
        "before": made["carried_forward"],
        "scan": came,
        "ldae": made["ldae"],
        "latent_trend": made["latent_trend"],
        "voxel_trend": made["voxel_trend"],
        "spread": spread,
    }
    for name, volume in shown.items():
        pictures.setdefault(name, []).append(levels(volume))
