"""Phantoms moved to another severity, against the same head with that severity."""

import numpy as np
import pandas as pd
import torch

from pipeline.applications.manipulate import manipulate
from pipeline.cohort.subjects import spread
from pipeline.ground_truth.counterfactuals import NO_CHANGE, score_pair, summarise_pairs
from pipeline.ground_truth.phantom_pairs import true_pairs
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.models.direction import read_direction
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import Subject, make_subject
from pipeline.probes.protocols import FIT_SPLITS
from pipeline.regions.meter import RegionMeter
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.rivals.pca_direction import fit_pca_direction
from pipeline.runtime.progress import Progress
from pipeline.study.study import Part, Study
from schemas.errors import ContractError

SEVERITY = "atrophy"
"""Column of a phantom's manifest: its severity."""


def evaluate_true_counterfactuals(study: Study) -> Part:
    """Move people of the judged split to another severity and compare with the truth.

    Methods: `ldae` along the probe's direction, `pca` along the same target's direction in PCA of
    latents, `latent_shift` by the mean change of latents with severity, and no change. Each goes
    as far as the fitting scans' own positions move with severity. People are drawn straight on the
    grid: own head and truth differ in severity alone. `skipped` where there is no truth.
    """
    params = study.params.manipulation
    reason = _no_truth(study)
    if reason is not None or study.directions is None or study.phantom is None:
        return Part(metrics={"skipped": reason or "no --directions of the probe stage were given"})
    models = study.models
    try:
        direction = read_direction(
            study.directions, params.direction, ldae_digest=models.ldae.digest,
            dim=models.ldae.net.encoder.dim,
        )  # fmt: skip
    except ContractError as error:
        return Part(metrics={"skipped": str(error)})
    fitting = study.scans[study.scans["split"].isin(FIT_SPLITS)]
    fitting = spread(fitting, MAX_LATENTS)
    scan_ids = fitting["scan_id"].astype(str).tolist()
    severity = fitting[SEVERITY].to_numpy(float)
    rate = _rate(direction.position(study.y_sem(scan_ids).double().cpu().numpy()), severity)
    latents = study.latents.load(scan_ids).mean.float()
    shift = np.polyfit(severity, latents.flatten(1).numpy().astype(np.float64), 1)[0]
    pca = fit_pca_direction(study.latents, study.scans, study.probe, params.direction)
    pca_rate = 0.0 if pca is None else _rate(pca.position(latents.flatten(1).numpy()), severity)
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


def _rate(position: np.ndarray, severity: np.ndarray) -> float:
    """Return how far positions along a direction move for one unit of severity."""
    return float(np.polyfit(severity, position, 1)[0])


def _like(step: np.ndarray, latent: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(step).float().reshape(latent.shape).to(latent)
