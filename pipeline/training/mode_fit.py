"""Fit what y_sem measures, before training: mean latent, principal modes and what they leave."""

import torch

from pipeline.cohort.subjects import subjects_of
from pipeline.models.ldae import Ldae
from pipeline.models.mode_prior import ModePrior
from pipeline.nets.centred import placed
from pipeline.nets.encoders import SemanticEncoder
from pipeline.nets.semantic import LOUDNESS, DeviationEncoder
from pipeline.training.standardisation import (
    AnyLatents,
    estimate_deviations,
    shrunk_variance,
    subject_folds,
)
from pipeline.training.tissue_fit import fit_tissue_modes

MAX_MODE_SCANS = 1024
"""Training scans, evenly spread, whose principal modes are taken."""


def fit_modes(ldae: Ldae, train: AnyLatents, prior: ModePrior | None, *, started: bool) -> None:
    """Set centre, unit and modes to those of the training latents and of the prior's people.

    Latents may be on a smaller grid than the model that was `started`: around them lies what lies
    around the prior's mean, and nobody deviates from it there. A model that was `started` from
    another one keeps its tissue modes, and its estimator reads the new amounts as it read the old
    ones.
    """
    encoder: SemanticEncoder = ldae.encoder
    if not isinstance(encoder, DeviationEncoder):
        return
    estimator, standardise = ldae.estimator, ldae.diffusion.standardise.cpu()
    mean, unit = estimate_deviations(train)
    unit = unit.reshape(-1, 1, 1, 1)
    if prior is not None:
        mean = placed(mean, prior.mean)
    people = len(set(subjects_of(train.scan_ids)))
    centre = mean if prior is None else prior.centre(mean, people)
    before = estimator.measures() if started else None
    encoder.set_input_statistics(standardise(centre), unit * standardise.scale_of(centre))
    index = torch.linspace(0, len(train) - 1, min(len(train), MAX_MODE_SCANS)).long()
    deviations = encoder.deviation(standardise(train.take_mean(index)))
    scan_ids = [train.scan_ids[i] for i in index.tolist()]
    if encoder.tissue is not None and started:
        encoder.tissue.count_from(centre, unit)
    elif encoder.tissue is not None:
        fit_tissue_modes(encoder.tissue, deviations, scan_ids, mean_latent=centre, unit=unit)
    if encoder.modes is None:
        return
    others = None if prior is None else prior.around(centre, standardise, encoder.spread)
    left = encoder.modes.fit(
        deviations, subject_folds(scan_ids), loudness=LOUDNESS["modes"], others=others
    )
    assert estimator.modes is not None
    estimator.modes.load_state_dict(encoder.modes.state_dict())
    estimator.spread.copy_(encoder.spread)
    estimator.centre.copy_(encoder.centre)
    variance = shrunk_variance(left, people) * encoder.spread.square()
    estimator.prior.variance.copy_(variance)
    if before is not None:
        estimator.read_as(before)
