"""Interpolate a middle visit from its neighbours, and compare with the acquired scan."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.applications.inputs import InputScan, encoder_volumes
from pipeline.applications.interpolate import interpolate
from pipeline.applications.residual import blend
from pipeline.cohort.middle_visits import MiddleVisit, middle_visits
from pipeline.cohort.subjects import many_subjects_first
from pipeline.imaging.ventricles import intensity_levels
from pipeline.metrics.intervals import mean_interval, paired_difference
from pipeline.metrics.reconstruction import ReconstructionScorer, lowest
from pipeline.models.inference import LdaeInference
from pipeline.regions.lobes import VENTRICLES, LobeMeter
from pipeline.runtime.progress import Progress
from pipeline.study.study import EXAMPLES, Part, Study, levels

METHODS = ("ldae", "ldae_detail", "latent_blend", "blend", "nearest")
"""LDAE interpolation; the same plus the two scans' detail that the autoencoder cannot hold; the
decoded linear blend of the two latents (what PCA of latents does, for PCA and what it leaves out
are both linear); linear voxel blend of the two scans; the scan nearer in time."""
TARGETS = ("scan", "decoded")
"""The preprocessed middle visit; and what the autoencoder makes of it, where blend and nearest
are those of decoded neighbours, so that the autoencoder's blur is on both sides."""
MEASURES = ("mse_brain", "ssim_brain", "ventricle_error_ml")
GAPS = (6.0, 12.0, 24.0, 36.0, np.inf)
"""Upper ends (months) of the groups of gaps between the two neighbours."""

REGIONS = "region_error_ml"
"""Beside MEASURES: `region_error_ml <coarse region>`, the absolute error of its tissue."""

Volume = NDArray[np.float32]


def interpolate_middle_visit(
    models: LdaeInference, visit: MiddleVisit, before: InputScan, after: InputScan
) -> dict[str, dict[str, Volume]]:
    """Return {target: {method: volume}}: a middle visit made from its two neighbours alone.

    Raises
    ------
    ValueError
        If a scan comes without its volume.
    """
    if before.volume is None or after.volume is None:
        raise ValueError("middle visits are judged on volumes; open the scans with them")
    alpha = visit.alpha
    latents = torch.cat([before.z_0, torch.lerp(before.z_0, after.z_0, alpha), after.z_0])
    first, latent_blend, last = models.decode(latents).numpy()
    volumes = encoder_volumes(before, after)
    outcome = interpolate(models, before.z_0, after.z_0, [alpha], volumes=volumes)
    ldae = outcome.volumes[0].numpy()
    both = {"ldae": ldae, "latent_blend": latent_blend}
    detail = blend(before.volume - first, after.volume - last, alpha)
    return {
        "scan": both
        | {"ldae_detail": np.clip(ldae + detail, 0, 1)}
        | _without_model(before.volume, after.volume, alpha),
        "decoded": both | _without_model(first, last, alpha),
    }


def _without_model(first: Volume, last: Volume, alpha: float) -> dict[str, Volume]:
    return {"blend": blend(first, last, alpha), "nearest": first if alpha <= 0.5 else last}


def score_middle_visit(
    models: LdaeInference, visit: MiddleVisit, middle: InputScan, made: dict[str, dict[str, Volume]]
) -> pd.DataFrame:
    """Return one row a method and target: how close the interpolation is to the visit.

    Columns: those of `reconstruction_metrics`, ventricle_error_ml (absolute), and REGIONS.

    Raises
    ------
    ValueError
        If `middle` comes without its volume.
    """
    if middle.volume is None:
        raise ValueError("middle visits are judged on volumes; open the scans with them")
    scan = middle.volume
    targets = dict(zip(TARGETS, (scan, models.decode(middle.z_0)[0].numpy()), strict=True))
    affine = np.asarray(models.autoencoder.grid.affine, dtype=np.float64)
    own_levels = intensity_levels(scan, affine)
    mask = _tensor(scan) > 0
    meter = LobeMeter(models.autoencoder.grid)
    rows = []
    for target_name, target in targets.items():
        truth = meter.measure(target, own_levels)
        scorer = ReconstructionScorer(_tensor(target), mask)
        for method, volume in made[target_name].items():
            measured = meter.measure(volume, own_levels)
            errors = {name: abs(measured[name] - ml) for name, ml in truth.items()}
            ventricles = {"ventricle_error_ml": errors.pop(VENTRICLES)}
            by_region = {f"{REGIONS} {name}": error for name, error in errors.items()}
            about: dict[str, Any] = {"scan_id": visit.scan_id, "subject_id": visit.subject_id}
            about |= {"method": method, "target": target_name}
            numbers = scorer.score(_tensor(volume))
            gap = {"gap_months": visit.gap_months, "alpha": visit.alpha}
            rows.append(about | gap | numbers | ventricles | by_region)
    return pd.DataFrame(rows)


def evaluate_interpolation(study: Study) -> Part:
    """Interpolate the middle visits of the judged subjects; `skipped` where there is none."""
    if not study.params.max_middle_visits:
        return Part(metrics={"skipped": "evaluate.max_middle_visits is 0"})
    judged = study.judged
    visits = middle_visits(judged, set(judged["scan_id"]))
    order = many_subjects_first([visit.subject_id for visit in visits])
    visits = [visits[i] for i in order[: study.params.max_middle_visits]]
    if not visits:
        reason = f"no subject of the {study.params.split} split has three dated visits"
        return Part(metrics={"skipped": reason})
    tables = []
    pictures: dict[str, list[Any]] = {}
    with Progress("interpolation", total=len(visits)) as bar:
        for visit in visits:
            before, middle, after = map(study.open_scan, (visit.before, visit.scan_id, visit.after))
            made = interpolate_middle_visit(study.models, visit, before, after)
            tables.append(score_middle_visit(study.models, visit, middle, made))
            if len(pictures.get("scan_id", [])) < EXAMPLES:
                shown = {"before": before.volume, "scan": middle.volume, "after": after.volume}
                pictures.setdefault("scan_id", []).append(np.asarray(visit.scan_id))
                pictures.setdefault("gap_months", []).append(np.asarray(visit.gap_months))
                for name, volume in (shown | made["scan"]).items():
                    assert volume is not None
                    pictures.setdefault(name, []).append(levels(volume))
            bar.advance()
    per_scan = pd.concat(tables, ignore_index=True)
    metrics = {"visits": len(visits)} | summarise_interpolation(per_scan)
    stacked = {name: np.stack(values) for name, values in pictures.items()}
    return Part(metrics=metrics, per_scan=per_scan, pictures=stacked)


def summarise_interpolation(per_scan: pd.DataFrame) -> dict[str, Any]:
    """Return means over subjects with intervals.

    `all` and `by_gap` (`≤12 months` and so on): {target: {method: {measure: Estimate}}}.
    `ldae_minus` and `ldae_detail_minus`: {target: {method: {measure: Estimate}}}, paired by visit;
    below 0 the LDAE is nearer for errors, above 0 for SSIM. `by_region`: {region: {method: error of
    its tissue (ml)}} and `by_region_minus`: {region: {method: LDAE with detail minus it}}, against
    the scan.
    """
    of_scan = per_scan[per_scan["target"] == "scan"]
    by_region = {
        str(name).removeprefix(f"{REGIONS} "): str(name)
        for name in per_scan
        if str(name).startswith(REGIONS)
    }

    def figures(rows: pd.DataFrame) -> dict[str, Any]:
        return {
            str(target): {
                str(method): {
                    measure: mean_interval(
                        group[measure].to_numpy(),
                        group["subject_id"].to_numpy(),
                        least=lowest(measure),
                    ).model_dump()
                    for measure in MEASURES
                }
                for method, group in of_target.groupby("method", sort=False)
            }
            for target, of_target in rows.groupby("target", sort=False)
        }

    def differences(
        rows: pd.DataFrame, ours: str, measures: Sequence[str] = MEASURES
    ) -> dict[str, Any]:
        wide = rows.pivot_table(
            index=["subject_id", "scan_id"], columns="method", values=list(measures)
        )
        subjects = wide.index.get_level_values("subject_id").to_numpy()
        return {
            method: {
                measure: paired_difference(
                    wide[measure][ours].to_numpy(),
                    wide[measure][method].to_numpy(),
                    subjects,
                ).model_dump()
                for measure in measures
            }
            for method in METHODS
            if method not in ("ldae", "ldae_detail") and method in wide[measures[0]]
        }

    groups = per_scan["gap_months"].map(gap_group)
    order = sorted(groups.unique(), key=[name for _, name in _GROUPS].index)
    return {
        "all": figures(per_scan),
        "by_gap": {name: figures(per_scan[groups == name]) for name in order},
        "visits_by_gap": {
            name: int(per_scan.loc[groups == name, "scan_id"].nunique()) for name in order
        },
        "ldae_minus": {
            str(target): differences(rows, "ldae")
            for target, rows in per_scan.groupby("target", sort=False)
        },
        "ldae_detail_minus": {"scan": differences(of_scan, "ldae_detail")},
        "by_region": {
            region: {
                str(method): mean_interval(rows[column], rows["subject_id"], least=0).model_dump()
                for method, rows in of_scan.groupby("method", sort=False)
            }
            for region, column in by_region.items()
        },
        "by_region_minus": {
            region: {
                rival: measures[column]
                for rival, measures in differences(of_scan, "ldae_detail", [column]).items()
            }
            for region, column in by_region.items()
        },
    }


_GROUPS = [
    (high, f"up to {high:g} months" if np.isfinite(high) else f"over {GAPS[-2]:g} months")
    for high in GAPS
]


def gap_group(months: float) -> str:
    """Return the group of a gap between two visits."""
    return next(name for high, name in _GROUPS if months <= high)


def _tensor(volume: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(volume, dtype=np.float32))
