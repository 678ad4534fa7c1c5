"""The plain rival of manipulation: the same probe on PCA of latents, and a step along it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort.subjects import spread
from pipeline.probes.features import fit_pca
from pipeline.probes.linear import LinearProbe, direction_of
from pipeline.probes.protocols import FIT_SPLITS
from pipeline.probes.targets import make_target, problem_of
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.stores.latents import LatentStore
from schemas.evaluation import ProbeParams

Floats = NDArray[np.float64]
FEATURES = "pca_latents"


@dataclass(frozen=True, slots=True)
class PcaDirection:
    """A direction in the space of latents; what PCA leaves out of a scan stays as it is."""

    step: Floats
    """(latent,): what scale 1 adds to a flattened posterior mean."""
    reader: Floats
    """(latent,): the probe's score, in standard deviations of the fitting scans, is latent @ reader
    plus offset."""
    offset: float
    shape: tuple[int, ...]
    """(channel, x, y, z)."""

    def position(self, latents: NDArray[np.floating]) -> Floats:
        """Return where flattened latents (scan, latent) lie along the direction."""
        return np.asarray(latents, dtype=np.float64) @ self.reader + self.offset

    def moves(self, scales: Sequence[float]) -> Float[Tensor, "S C X Y Z"]:
        """Return what each scale adds to a posterior mean."""
        moves = np.asarray(scales, dtype=np.float64)[:, None] * self.step
        return torch.from_numpy(moves).float().reshape(len(scales), *self.shape)


def fit_pca_direction(
    store: LatentStore, scans: pd.DataFrame, params: ProbeParams, name: str
) -> PcaDirection | None:
    """Return the direction of a target (`diagnosis:AD`) in PCA of latents, as the probe finds it.

    Fitted on train and val alone, like y_sem's. None where the probe cannot be fitted.
    """
    scans = spread(scans[scans["split"].isin(FIT_SPLITS)], MAX_LATENTS).reset_index(drop=True)
    train = (scans["split"] == "train").to_numpy()
    if train.sum() < 2:
        return None
    latents = store.load(list(scans["scan_id"].astype(str))).mean.float()
    flat = latents.flatten(1).numpy()
    pca = fit_pca(flat[train])
    features = {FEATURES: pca.transform(flat)}
    column = name.split(":")[0]
    classes = params.classification.get(column)
    if problem_of(column, classes, scans) is not None:
        return None
    target = make_target(column, classes, features, scans, params)
    rows = target.rows_in(FIT_SPLITS)
    if target.unfit_reason(rows, "train and val") is not None:
        return None
    probe = target.fit(FEATURES, rows)
    assert isinstance(probe, LinearProbe)
    direction = direction_of(probe, target.features[FEATURES][rows], column)
    if direction is None:
        return None
    reader = direction.reader @ pca.components_
    centre = (pca.mean_ @ pca.components_.T + direction.mean) @ direction.reader
    step = direction.of_weights.step @ pca.components_
    return PcaDirection(step, reader, -float(centre), tuple(latents.shape[1:]))
