"""Bring the y_sem of a fold's model into the space of the study's model.

y_sem is [amounts of modes of latents | amounts of modes of tissue | summary of the network]. Two
trainings agree on none: modes are others, and a summary may be turned by any rotation without a
change of the loss.
"""

import copy
from dataclasses import dataclass
from typing import Protocol

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


def parts_of(ldae: Ldae) -> dict[str, slice]:
    """Return where in y_sem its parts are: `modes`, `tissue` (of which it has some), `summary`."""
    encoder = ldae.encoder
    if isinstance(encoder, DeviationEncoder):
        return encoder.parts()
    return {"summary": slice(0, encoder.dim)}


def map_between(
    fold: Ldae, reference: Ldae, *, alignment: PairedCodes, origin: PairedCodes
) -> SpaceMap:
    """Return the map from the fold's y_sem to the reference's.

    Amounts of modes are mapped exactly (`map_amounts`). The summary is turned by the rotation that
    brings the `alignment` scans closest together (orthogonal Procrustes, Schönemann 1966), about
    the mean of the `origin` scans, those that the fold's model was trained on: alignment scans may
    be unlike the study's, and where their mean lies says little of where the study's does.
    """
    parts, dim = parts_of(fold), fold.encoder.dim
    matrix, offset = np.zeros((dim, dim)), np.zeros(dim)
    for name, fields in (("modes", RoughLatents), ("tissue", RoughTissue)):
        if (part := parts.get(name)) is not None:
            matrix[part, part], offset[part] = map_amounts(fields(fold), fields(reference))
    rest = parts.get("summary", slice(dim, dim))
    rotation, explained = turn_summaries(alignment.own[:, rest], alignment.reference[:, rest])
    matrix[rest, rest] = rotation
    means = [
        np.asarray(codes[:, rest], dtype=np.float64).mean(axis=0)
        for codes in (origin.own, origin.reference)
    ]
    offset[rest] = means[1] - means[0] @ rotation
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


class RoughFields(Protocol):
    """Fields as far as modes hold them, in double precision: to and from amounts."""

    modes: PrincipalModes

    def fields(self, amounts: Float[Tensor, "B K"]) -> Float[Tensor, "B _ X Y Z"]:
        """Return the mean field plus the modes, each times its amount."""

    def amounts(self, fields: Float[Tensor, "B _ X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the amounts of the modes in fields."""


@torch.no_grad()
def map_amounts(own: RoughFields, reference: RoughFields) -> tuple[Floats, Floats]:
    """Return matrix (K, K) and offset (K,) from the fold's amounts of modes to the reference's.

    The fold's amounts stand for a rough field, its mean plus the sum of its modes, each times its
    amount: of all linear guesses of the field the best one on the scans fitted on, since amounts of
    principal modes are uncorrelated with what the modes leave over. The map gives the amounts of
    the reference's modes in that field; it is affine and exact.
    """
    count = len(own.modes.spread)
    probes = torch.cat([torch.zeros(1, count), torch.eye(count)]).double()
    mapped = reference.amounts(own.fields(probes)).numpy()
    return mapped[1:] - mapped[0], mapped[0]


class RoughLatents:
    """Posterior means as far as the modes of latents hold them."""

    modes: PrincipalModes

    def __init__(self, ldae: Ldae) -> None:
        encoder = ldae.encoder
        assert isinstance(encoder, DeviationEncoder)
        assert encoder.modes is not None
        self.modes = copy.deepcopy(encoder.modes).double().cpu()
        self.centre, self.spread = encoder.centre.double().cpu(), encoder.spread.double().cpu()
        self.standardise = copy.deepcopy(ldae.diffusion.standardise).double().cpu()

    def fields(self, amounts: Float[Tensor, "B K"]) -> Float[Tensor, "B C X Y Z"]:
        """Return posterior means: the mean latent plus the modes' amounts."""
        deviation = self.modes.compose(amounts)
        return self.standardise.inverse(self.centre + self.spread * deviation)

    def amounts(self, fields: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the amounts of the modes in posterior means."""
        deviation = (self.standardise(fields) - self.centre) / self.spread
        return self.modes.project(deviation)


class RoughTissue:
    """Tissue fractions as far as their modes hold them."""

    modes: PrincipalModes

    def __init__(self, ldae: Ldae) -> None:
        encoder = ldae.encoder
        assert isinstance(encoder, DeviationEncoder)
        assert encoder.tissue is not None
        self.modes = copy.deepcopy(encoder.tissue.modes).double().cpu()
        self.centre = encoder.tissue.centre.double().cpu()

    def fields(self, amounts: Float[Tensor, "B K"]) -> Float[Tensor, "B _ X Y Z"]:
        """Return fractions: the mean ones plus the modes' amounts."""
        return self.centre + self.modes.compose(amounts)

    def amounts(self, fields: Float[Tensor, "B _ X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the amounts of the modes in fractions."""
        return self.modes.project(fields - self.centre)
