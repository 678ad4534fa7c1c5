"""Score generated brains: as varied as real ones, as real, and no copies."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.generate import fit_prior, generate
from pipeline.cohort.subjects import spread
from pipeline.metrics.distribution_distances import frechet_distance
from pipeline.metrics.sample_tests import copies, kernel_width, mean_of_pairs, mmd
from pipeline.metrics.ssim import ms_ssim
from pipeline.models.inference import LdaeInference
from pipeline.models.pretrained import load_medicalnet, medicalnet_features
from pipeline.rivals.nearest_latents import MAX_LATENTS, Neighbours
from pipeline.study.study import EXAMPLES, Part, Study, levels, of_many_subjects

Floats = NDArray[np.float64]


MAX_PAIRS = 28
"""Most pairs of brains whose likeness is measured."""


def evaluate_generation(study: Study) -> Part:
    """Score brains of the denoiser alone, and of the LDAE with y_sem from a Gaussian prior.

    Real brains stand beside them as the AE decodes them, so that its blur does not count.
    """
    params = study.params.generation
    if params.count < 2:
        return Part(metrics={"skipped": "evaluate.generation.count is below 2"})
    models = study.models
    train = study.scans[study.scans["split"] == "train"]
    if len(train) < 2 or len(study.judged) < 2:
        return Part(metrics={"skipped": "fewer than two training or two judged scans"})
    known, held_out = (
        Neighbours.of(study.latents, of_many_subjects(scans, len(scans)))
        for scans in (train, study.judged)
    )
    shape = models.latent_shape
    chosen = list(spread(train, MAX_LATENTS)["scan_id"].astype(str))
    prior = fit_prior(study.typical_y_sem(chosen))
    seed, count = study.params.seed, params.count
    generated = {
        "denoiser": generate(models, count=count, seed=seed, prior=None).volumes,
        "prior": generate(models, count=count, seed=seed, prior=prior).volumes,
    }
    judged, trained_on = held_out.sample(), known.sample()
    real = _decoded(study, judged[: max(count, 2)], shape)
    real_train = _decoded(study, trained_on[: max(count, 2)], shape)
    net = None if params.medicalnet is None else load_medicalnet(params.medicalnet, models.device)
    rows = [pd.DataFrame(_nearest(known, judged)).assign(method="held-out scans")]
    width = kernel_width(trained_on, judged)
    sets: dict[str, Any] = {
        "held_out": _diversity(real)
        | {"mmd_latent": mmd(trained_on, judged, width).model_dump(), "brains": len(judged)}
        | _nearest_summary(known, judged)
    }
    unseen = known.distances(judged).min(axis=1)
    planted = known.distances(_encoded(models, real_train)).min(axis=1)
    if net is not None:
        truth = medicalnet_features(net, real, models.device)
        seen = medicalnet_features(net, real_train, models.device)
        feature_width = kernel_width(truth, seen)
        sets["held_out"] |= _in_features(truth, seen, feature_width)
    for name, volumes in generated.items():
        latents = _encoded(models, volumes)
        rows.append(pd.DataFrame(_nearest(known, latents)).assign(method=name))
        sets[name] = _diversity(volumes) | {
            "mmd_latent": mmd(judged, latents, width).model_dump(),
            "brains": len(volumes),
            "copies": copies(known.distances(latents).min(axis=1), unseen, planted),
        }
        sets[name] |= _nearest_summary(known, latents)
        if net is not None:
            features = medicalnet_features(net, volumes, models.device)
            sets[name] |= _in_features(truth, features, feature_width)
    pictures = {name: levels(volumes[:EXAMPLES].numpy()) for name, volumes in generated.items()}
    metrics = {"brains": count, "medicalnet": net is not None, "sets": sets}
    metrics |= {} if study.out_of_fold is None else {"prior": "out-of-fold y_sem"}
    return Part(
        metrics=metrics,
        per_scan=pd.concat(rows, ignore_index=True),
        pictures=pictures | {"held_out": levels(real[:EXAMPLES].numpy())},
    )


def _decoded(
    study: Study, latents: NDArray[np.float32], shape: tuple[int, ...]
) -> Float[Tensor, "N X Y Z"]:
    models = study.models
    return models.decode(models.standardise(torch.from_numpy(latents).reshape(-1, *shape)))


def _encoded(models: LdaeInference, volumes: Float[Tensor, "N X Y Z"]) -> NDArray[np.float32]:
    """Return the latents of volumes (n, latent), as they are stored."""
    latents: NDArray[np.float32] = (
        models.unstandardise(models.encode(volumes)).flatten(1).cpu().numpy()
    )
    return latents


def _nearest(known: Neighbours, latents: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """Yield the nearest training scan of each latent and how far it is."""
    distances = known.distances(latents)
    for number, i in enumerate(distances.argmin(axis=1)):
        yield {
            "number": number,
            "nearest_training_scan": known.scan_ids[i],
            "distance": float(distances[number, i]),
        }


def _nearest_summary(known: Neighbours, latents: NDArray[np.float32]) -> dict[str, float]:
    nearest = known.distances(latents).min(axis=1)
    return {
        "nearest_training_median": float(np.median(nearest)),
        "nearest_training_min": float(nearest.min()),
    }


def _diversity(volumes: Float[Tensor, "N X Y Z"]) -> dict[str, Any]:
    """Return the mean likeness of pairs, with an interval over brains; real ones set the mark."""
    pairs = list(combinations(range(len(volumes)), 2))
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_PAIRS)).astype(int))
    likeness = np.full((len(volumes), len(volumes)), np.nan)
    for i in chosen:
        one, other = (volumes[number][None, None] for number in pairs[i])
        likeness[pairs[i]] = ms_ssim(one, other, one > 0)[1]
    return {"ms_ssim_between": mean_of_pairs(likeness).model_dump()}


def _in_features(truth: Floats, generated: Floats, width: float) -> dict[str, Any]:
    discrepancy = mmd(truth, generated, width).model_dump()
    return {"mmd_medicalnet": discrepancy, "fid_medicalnet": frechet_distance(truth, generated)}
