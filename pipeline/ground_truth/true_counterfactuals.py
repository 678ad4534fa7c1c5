"""Phantoms moved to another severity, against the same head with that severity."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.applications.manipulate import manipulate
from pipeline.cohort.subjects import spread
from pipeline.ground_truth.counterfactuals import NO_CHANGE, score_pair, summarise_pairs
from pipeline.ground_truth.phantom_pairs import true_pairs
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.models.direction import Direction
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import Subject, make_subject
from pipeline.probes.linear import LinearProbe, direction_of
from pipeline.probes.protocols import FIT_SPLITS
from pipeline.probes.targets import make_target, problem_of
from pipeline.regions.meter import RegionMeter
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.rivals.pca_direction import fit_pca_direction
from pipeline.runtime.progress import Progress
from pipeline.study.study import Part, Study

SEVERITY = "atrophy"
"""Column of a phantom's manifest: its severity."""


def evaluate_true_counterfactuals(study: Study) -> Part:
    """Move people of the judged split to another severity and compare with the truth.

    Methods: `ldae` along the direction of a probe that reads severity from y_sem, `pca` along that
    of one on PCA of latents, `latent_shift` by the mean change of latents with severity, and no
    change: all were given the same severities. Each goes as far as the fitting scans do. People are
    drawn straight on the grid: own head and truth differ in severity alone. `skipped` where there
    is no truth.
    """
    params = study.params.manipulation
    reason = _no_truth(study)
    if reason is not None:
        return Part(metrics={"skipped": reason})
    models = study.models
    fitting = study.scans[study.scans["split"].isin(FIT_SPLITS)]
    fitting = spread(fitting, MAX_LATENTS)
    scan_ids = fitting["scan_id"].astype(str).tolist()
    severity = fitting[SEVERITY].to_numpy(float)
    codes = study.typical_y_sem(scan_ids)
    direction = _severity_direction(study, fitting, codes)
    if direction is None:
        return Part(
            metrics={"skipped": "no probe of severity can be fitted to y_sem of train and val"}
        )
    rate = scale_of_change(direction.position(codes), severity, direction)
    latents = study.latents.load(scan_ids).mean.float()
    shift = np.polyfit(severity, latents.flatten(1).numpy().astype(np.float64), 1)[0]
    pca = fit_pca_direction(study.latents, study.scans, study.probe, SEVERITY)
    pca_rate = (
        0.0 if pca is None else np.polyfit(severity, pca.position(latents.flatten(1).numpy()), 1)[0]
    )
    phantoms = RegisteredPhantoms(models.autoencoder.grid)
    meter = None
    if params.true_regions:
        meter = RegionMeter(
            parcellation=desikan_killiany(), grid=models.autoencoder.grid, own_regions=False
        )
    people = _people(study)[: params.max_subjects]
    tables = []
    changes = params.true_changes
    with Progress("true counterfactuals", total=len(people)) as bar:
        for person in people:
            pairs = true_pairs(phantoms, person, changes)
            own = torch.from_numpy(pairs[0].own)[None]
            z_0 = models.encode(own)
            mean = models.unstandardise(z_0)
            scales = [change * rate for change in changes]
            by_ldae = manipulate(models, z_0, direction, scales, volume=own).volumes.numpy()
            unmoved = models.decode(z_0)[0].numpy()
            for pair, volume in zip(pairs, by_ldae, strict=True):
                moved = {"latent_shift": mean + _like(pair.change * shift, mean)}
                if pca is not None:
                    moved["pca"] = mean + pca.moves([pair.change * pca_rate]).to(mean)
                made = {"ldae": volume} | {
                    name: models.decode(models.standardise(latent))[0].numpy()
                    for name, latent in moved.items()
                }
                by_region = meter if pair.change == max(changes) else None
                tables.append(score_pair(models, pair, made | {NO_CHANGE: unmoved}, by_region))
            bar.advance()
    per_scan = pd.concat(tables, ignore_index=True)
    metrics = summarise_pairs(per_scan) | {
        "direction": direction.towards,
        "changes": list(params.true_changes),
        "scale_per_severity": rate,
    }
    return Part(metrics=metrics, per_scan=per_scan)


def _no_truth(study: Study) -> str | None:
    """Return why there is no true counterfactual, or None where there is."""
    params = study.params.manipulation
    if not (params.max_subjects and params.true_changes):
        return "evaluate.manipulation.max_subjects is 0, or true_changes is empty"
    if study.phantom is None or SEVERITY not in study.manifest:
        return "of real people nobody knows the true counterfactual"
    fitting = study.scans[study.scans["split"].isin(FIT_SPLITS)]
    if fitting[SEVERITY].nunique() < 3:
        return "fewer than three training scans of different severity"
    if not _people(study):
        return "the people of the manifest are not those of cohort.phantom in params.yaml"
    return None


def _people(study: Study) -> list[Subject]:
    """Return the generator's people of the judged split, whose severity the manifest confirms."""
    assert study.phantom is not None
    first = study.judged.drop_duplicates("subject_id")
    people = []
    for name, severity in zip(first["subject_id"], first[SEVERITY], strict=True):
        number = str(name).removeprefix("sub-")
        if number.isdigit():
            person = make_subject(int(number), study.phantom)
            if abs(person.atrophy - float(severity)) < 1e-3:
                people.append(person)
    return people


def _severity_direction(
    study: Study, fitting: pd.DataFrame, codes: NDArray[np.float32]
) -> Direction | None:
    """Return the direction of a probe that reads severity from codes (scan, dim)."""
    table = fitting.reset_index(drop=True)
    if problem_of(SEVERITY, None, table) is not None:
        return None
    target = make_target(SEVERITY, None, {"y_sem": codes}, table, study.probe)
    rows = target.rows_in(FIT_SPLITS)
    if target.unfit_reason(rows, "train and val") is not None:
        return None
    probe = target.fit("y_sem", rows)
    assert isinstance(probe, LinearProbe)
    direction = direction_of(probe, target.features["y_sem"][rows], SEVERITY)
    if direction is None or not study.params.manipulation.goes_along_weight:
        return direction
    return direction.of_weights


def scale_of_change(position: np.ndarray, severity: np.ndarray, direction: Direction) -> float:
    """Return how far along a direction one unit of severity is.

    Of a pattern, the inverse of how much more severe people are who lie 1 further along: the
    pattern is how their codes differ. Of a weight, how far places move with severity. Where the
    direction tells severity exactly, both are the same; with correlation r the second is r² of the
    first.
    """
    if direction.pattern is None:
        return float(np.polyfit(severity, position, 1)[0])
    return 1 / float(np.polyfit(position, severity, 1)[0])


def _like(step: np.ndarray, latent: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(step).float().reshape(latent.shape).to(latent)
