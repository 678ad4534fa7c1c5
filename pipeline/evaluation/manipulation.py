"""Score counterfactuals, scale by scale: what changes, and whether it is the same brain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pipeline.applications.manipulate import manipulate
from pipeline.imaging.brain import BRAIN_LEVEL
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml, ventricle_territory
from pipeline.metrics.dose_response import slope, spearman
from pipeline.metrics.intervals import mean_interval, median_interval, share_interval
from pipeline.models.direction import Direction, read_direction
from pipeline.models.inference import LdaeInference
from pipeline.rivals.nearest_latents import Neighbours
from pipeline.rivals.pca_direction import PcaDirection, fit_pca_direction
from pipeline.runtime.progress import Progress
from pipeline.study.study import EXAMPLES, Part, Study, levels
from schemas.errors import ContractError
from schemas.evaluation import ManipulationParams
from schemas.metrics import Estimate

MOVED_SHARE = 0.1
"""Share of the brain, the voxels that change most at the farthest scale, that counts as moved."""
MEASURES = ("score", "pca_score", "ventricle_ml")
"""Place of the made volume, encoded anew, along the probe's direction in y_sem; along the same
target's direction in PCA of latents; fluid of its lateral ventricles (ml of template space)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualScorer:
    """The models and references that counterfactual volumes are measured with."""

    models: LdaeInference
    direction: Direction
    pca: PcaDirection | None = None
    neighbours: Neighbours | None = None

    def measure(
        self,
        own: NDArray[np.float32],
        volumes: Float[Tensor, "S X Y Z"],
        scales: Sequence[float],
        subject_id: str = "",
        scan_id: str | None = None,
    ) -> pd.DataFrame:
        """Return one row a scale: `scale`, MEASURES and what stays the subject's.

        `own` is the scan's decoded latent. `identity` is the correlation with it inside its brain
        and outside the territory of the ventricles. `unmoved_identity` is the correlation and
        `unmoved_change` the mean absolute change (% of the brain's median) outside MOVED_SHARE of
        the brain. `same_subject` tells whether the nearest latent of all belongs to the subject;
        `other_scan` the same without the scan itself, where the subject has another.
        """
        affine = np.asarray(self.models.autoencoder.grid.affine, dtype=np.float64)
        own_levels = intensity_levels(own, affine)
        kept = (own > BRAIN_LEVEL) & (ventricle_territory(own.shape, affine) == 0)
        z_0 = self.models.encode(volumes)
        made = volumes.numpy()
        rest = _unmoved(own, made, scales)
        median = float(np.median(own[own > BRAIN_LEVEL])) if (own > BRAIN_LEVEL).any() else 1.0
        table: dict[str, Any] = {
            "scale": list(scales),
            "score": self.direction.position(
                self.models.embed(z_0, volumes).double().cpu().numpy()
            ),
            "ventricle_ml": [ventricle_ml(v, affine, levels=own_levels) for v in made],
            "identity": [float(np.corrcoef(own[kept], v[kept])[0, 1]) for v in made],
            "unmoved_identity": [float(np.corrcoef(own[rest], v[rest])[0, 1]) for v in made],
            "unmoved_change": [100 * float(np.abs(v - own)[rest].mean()) / median for v in made],
        }
        flat = self.models.unstandardise(z_0).flatten(1).cpu().numpy()
        if self.pca is not None:
            table["pca_score"] = self.pca.position(flat)
        if self.neighbours is not None:
            nearest = self.neighbours.nearest(flat)
            table["same_subject"] = [subject == subject_id for subject in nearest]
            if scan_id is not None and self.neighbours.scans_of(subject_id) > 1:
                others = self.neighbours.nearest(flat, without=scan_id)
                table["other_scan"] = [float(subject == subject_id) for subject in others]
        return pd.DataFrame(table)


def _unmoved(
    own: NDArray[np.float32], made: NDArray[np.float32], scales: Sequence[float]
) -> NDArray[np.bool_]:
    """Return the brain (X, Y, Z) less the MOVED_SHARE that changes most at the farthest scale."""
    brain = own > BRAIN_LEVEL
    change = np.abs(made[int(np.argmax(np.abs(scales)))] - own)
    if not brain.any():
        return brain
    still: NDArray[np.bool_] = brain & (change <= np.quantile(change[brain], 1 - MOVED_SHARE))
    return still


def evaluate_manipulation(study: Study) -> Part:
    """Score manipulation by the LDAE and, beside it, along PCA of latents.

    The first scan of each subject is moved. Without directions the part says why it was left out.
    """
    params = study.params.manipulation
    if not params.max_subjects:
        return Part(metrics={"skipped": "evaluate.manipulation.max_subjects is 0"})
    if study.directions is None:
        return Part(metrics={"skipped": "no --directions of the probe stage were given"})
    ldae_digest = study.models.ldae.digest
    try:
        direction = read_direction(
            study.directions,
            params.direction,
            ldae_digest=ldae_digest,
            dim=study.models.ldae.net.encoder.dim,
        )
    except ContractError as error:
        return Part(
            metrics={"skipped": f"{error}; set evaluate.manipulation.direction in params.yaml"}
        )
    scales, unit = scales_of(params, direction)
    if params.goes_along_weight:
        direction = direction.of_weights
    # A rival's steps are standard deviations too; without those there is nothing to compare.
    pca = None
    if not direction.assumed_spread:
        pca = fit_pca_direction(study.latents, study.scans, study.probe, params.direction)
    scorer = CounterfactualScorer(
        models=study.models,
        direction=direction,
        pca=pca,
        neighbours=Neighbours.of(study.latents, study.scans),
    )
    chosen = study.judged.drop_duplicates("subject_id").head(params.max_subjects)
    tables = []
    pictures: dict[str, list[Any]] = {}
    with Progress("manipulation", total=len(chosen)) as bar:
        for scan_id, subject_id in zip(chosen["scan_id"], chosen["subject_id"], strict=True):
            scan = study.open_scan(str(scan_id))
            own = study.models.decode(scan.z_0)[0].numpy()
            generated = manipulate(
                study.models, scan.z_0, direction, scales, volume=scan.encoder_volume
            )
            by_method = {"ldae": generated.volumes}
            if pca is not None:
                mean = study.models.unstandardise(scan.z_0)
                moved = mean + pca.moves(scales).to(mean)
                by_method["pca"] = study.models.decode(study.models.standardise(moved))
            for method, volumes in by_method.items():
                table = scorer.measure(own, volumes, params.scales, str(subject_id), str(scan_id))
                about = {"scan_id": scan_id, "subject_id": subject_id, "method": method}
                tables.append(table.assign(**about))
            if len(pictures.get("scan_id", [])) < EXAMPLES:
                _keep_example(pictures, str(scan_id), own, by_method)
            bar.advance()
    per_scan = pd.concat(tables, ignore_index=True)
    summary = summarise_dose(per_scan)
    metrics = {
        "direction": direction.towards,
        "scales": list(params.scales),
        "scale_unit": unit,
        "subjects": len(chosen),
        "methods": summary,
    }
    stacked = {name: np.stack(values) for name, values in pictures.items()}
    return Part(metrics=metrics, per_scan=per_scan, pictures=stacked)


def scales_of(params: ManipulationParams, direction: Direction) -> tuple[list[float], str]:
    """Return scales in units of the direction's spread, and the params' unit in words."""
    if params.unit == "published":
        return [direction.from_published(s) for s in params.scales], "published scale s"
    unit = "units of standardised y_sem" if direction.assumed_spread else "SD along the direction"
    return list(params.scales), unit


def summarise_dose(responses: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return, for each method and measure, what rising scales do, with intervals over subjects.

    `responses` has the columns of `CounterfactualScorer.measure`, subject_id and method.

    `spearman` is the median over subjects of the rank correlation with the scale (a measure that
    never changes counts as 0), `rising` the share of subjects in whom it is positive, `per_scale`
    the mean slope. `identity` and `unmoved_identity` are the means over subjects of their lowest,
    `unmoved_change` of their largest, `same_subject` the share of volumes whose nearest latent is
    the subject's, `other_scan` that without the scan itself.
    """
    summary: dict[str, dict[str, Any]] = {}
    for method, rows in responses.groupby("method", sort=False):
        groups = [group for _, group in rows.groupby("subject_id")]
        subjects = [str(group["subject_id"].iloc[0]) for group in groups]

        def interval(
            values: list[float],
            method: Callable[[ArrayLike, ArrayLike], Estimate] = mean_interval,
            subjects: list[str] = subjects,
        ) -> dict[str, Any]:
            return method(values, subjects).model_dump()

        summaries: dict[str, Any] = {}
        for measure in MEASURES:
            if measure not in rows or rows[measure].isna().any():
                continue
            pairs = [(g["scale"].to_numpy(float), g[measure].to_numpy(float)) for g in groups]
            correlations = [spearman(scale, values) for scale, values in pairs]
            summaries[measure] = {
                "spearman": interval(correlations, median_interval),
                "rising": interval([float(rho > 0) for rho in correlations], share_interval),
                "per_scale": interval([slope(scale, values) for scale, values in pairs]),
            }
        summaries |= _likeness(rows)
        summary[str(method)] = summaries
    return summary


def _likeness(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what of a method's volumes stays the subject's."""
    found: dict[str, Any] = {}
    for name, worst in (
        ("identity", "min"),
        ("unmoved_identity", "min"),
        ("unmoved_change", "max"),
    ):
        if name in rows:
            of_people = rows.groupby("subject_id")[name].agg(worst)
            found[name] = mean_interval(of_people, of_people.index).model_dump()
    for name in ("same_subject", "other_scan"):
        known = rows.dropna(subset=[name]) if name in rows else rows[:0]
        if len(known):
            shares = known[name].astype(float)
            found[name] = share_interval(shares, known["subject_id"]).model_dump()
    return found


def _keep_example(
    pictures: dict[str, list[Any]],
    scan_id: str,
    own: NDArray[np.float32],
    by_method: dict[str, torch.Tensor],
) -> None:
    pictures.setdefault("scan_id", []).append(np.asarray(scan_id))
    pictures.setdefault("own", []).append(levels(own))
    for method, volumes in by_method.items():
        pictures.setdefault(method, []).append(levels(volumes.numpy()))
