"""Bring the y_sem of a fold's model into the space of the study's model.

y_sem is [coordinates of K principal modes | summary of the network]. Two trainings agree on
neither: modes are others, and a summary may be turned by any rotation without a change of the loss.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from pipeline.models.ldae import Ldae
from pipeline.nets.principal_modes import PrincipalModes
from pipeline.nets.semantic import DeviationEncoder

Floats = NDArray[np.float64]

OPEN = 1e-6
"""Weight of the identity, by which directions are turned that no alignment scan tells of."""


@dataclass(frozen=True, slots=True)
class SpaceMap:
    """An affine map of y_sem: y @ matrix + offset."""

    matrix: Floats
    """(dim, dim)."""
    offset: Floats
    """(dim,)."""
    explained: float
    """Share of the reference's summaries of the alignment scans that the turned ones explain."""

    def __call__(self, y_sem: NDArray[np.floating]) -> Floats:
        """Return codes (scan, dim) of the fold's model as codes of the reference."""
        mapped: Floats = np.asarray(y_sem, dtype=np.float64) @ self.matrix + self.offset
        return mapped


@dataclass(frozen=True, slots=True)
class PairedCodes:
    """y_sem of the same scans by the fold's model and by the reference, both (scan, dim)."""

    own: NDArray[np.floating]
    reference: NDArray[np.floating]


def count_modes(ldae: Ldae) -> int:
    """Return how many of the first numbers of y_sem are amounts of modes."""
    encoder = ldae.encoder
    if not isinstance(encoder, DeviationEncoder) or encoder.modes is None:
        return 0
    return len(encoder.modes.spread)


def map_between(
    fold: Ldae, reference: Ldae, *, alignment: PairedCodes, origin: PairedCodes
) -> SpaceMap:
    """Return the map from the fold's y_sem to the reference's.

    Amounts of modes are mapped exactly (`map_modes`). The summary is turned by the rotation that
    brings the `alignment` scans closest together (orthogonal Procrustes, Schönemann 1966), about
    the mean of the `origin` scans, those that the fold's model was trained on: alignment scans may
    be unlike the study's, and where their mean lies says little of where the study's does.
    """
    modes = count_modes(fold)
    rotation, explained = turn_summaries(alignment.own[:, modes:], alignment.reference[:, modes:])
    dim = modes + len(rotation)
    matrix, offset = np.zeros((dim, dim)), np.zeros(dim)
    if modes:
        matrix[:modes, :modes], offset[:modes] = map_modes(fold, reference)
    matrix[modes:, modes:] = rotation
    means = [
        np.asarray(codes[:, modes:], dtype=np.float64).mean(axis=0)
        for codes in (origin.own, origin.reference)
    ]
    offset[modes:] = means[1] - means[0] @ rotation
    return SpaceMap(matrix, offset, explained)


def turn_summaries(
    own: NDArray[np.floating], reference: NDArray[np.floating]
) -> tuple[Floats, float]:
    """Return the rotation R (dim, dim) that brings own @ R closest to the reference, both centred.

    Also the share of the reference's variance that own @ R explains. Where there are fewer scans
    than numbers, the rotation is the one closest to none among those that serve the scans alike.
    """
    centred = [np.asarray(x, dtype=np.float64) - x.mean(axis=0) for x in (own, reference)]
    dim = own.shape[1]
    if not dim:
        return np.zeros((0, 0)), 1.0
    # As further scans: each axis of the one space at that of the other, of hardly any weight.
    weight = np.sqrt(OPEN * np.square(centred[1]).sum() / dim) * np.eye(dim)
    rotation, _ = orthogonal_procrustes(
        np.concatenate([centred[0], weight]), np.concatenate([centred[1], weight])
    )
    rest = np.square(centred[0] @ rotation - centred[1]).sum()
    total = np.square(centred[1]).sum()
    return np.asarray(rotation, dtype=np.float64), float(1 - rest / total) if total else 1.0


@torch.no_grad()
def map_modes(fold: Ldae, reference: Ldae) -> tuple[Floats, Floats]:
    """Return matrix (K, K) and offset (K,) from the fold's mode coordinates to the reference's.

    The fold's coordinates stand for a rough latent, its mean latent plus the sum of its modes, each
    times its amount: of all linear guesses of the latent the best one on the scans fitted on, since
    amounts of principal modes are uncorrelated with what the modes leave over. The map gives the
    coordinates of that latent in the reference's modes; it is affine and exact.
    """
    own, other = RoughLatents(fold), RoughLatents(reference)
    count = len(own.modes.spread)
    probes = torch.cat([torch.zeros(1, count), torch.eye(count)]).double()
    mapped = other.coordinates(own.latents(probes)).numpy()
    return mapped[1:] - mapped[0], mapped[0]


class RoughLatents:
    """Latents as far as modes hold them, in double precision: to and from mode coordinates."""

    modes: PrincipalModes

    def __init__(self, ldae: Ldae) -> None:
        encoder = ldae.encoder
        assert isinstance(encoder, DeviationEncoder)
        assert encoder.modes is not None
        self.modes = copy.deepcopy(encoder.modes).double().cpu()
        self.centre, self.spread = encoder.centre.double().cpu(), encoder.spread.double().cpu()
        self.standardise = copy.deepcopy(ldae.diffusion.standardise).double().cpu()

    def latents(self, coordinates: Float[Tensor, "B K"]) -> Float[Tensor, "B C X Y Z"]:
        """Return posterior means: the mean latent plus the modes' amounts."""
        deviation = self.modes.compose(self.modes.amounts_of(coordinates))
        return self.standardise.inverse(self.centre + self.spread * deviation)

    def coordinates(self, latents: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the coordinates of the modes in posterior means."""
        deviation = (self.standardise(latents) - self.centre) / self.spread
        return self.modes.coordinates(self.modes.project(deviation))
