"""The true counterfactual of a phantom: the same head with another severity of disease."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from pipeline.imaging.deformation.growth import volume_factor
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import Subject, Visit, make_visits

Volume = Float[np.ndarray, "X Y Z"]

ROUNDS = 8
"""Of the fixed point by which the same tissue is found in the other head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruePair:
    """A phantom, and the same phantom with another severity."""

    subject_id: str
    change: float
    """Of severity (`atrophy`; about 0.1 in healthy people, 1 in disease)."""
    own: Volume
    """In [0, 1], as preprocessing leaves it."""
    truth: Volume
    """The same head, scanner and noise; only severity differs."""
    volume_percent: Volume
    """True local growth of tissue (%) from `own` to `truth`."""


def with_severity(subject: Subject, change: float) -> Visit:
    """Return the first visit of a person whose severity is larger by `change`, at least 0."""
    return make_visits(replace(subject, atrophy=max(subject.atrophy + change, 0.0)))[0]


def true_pair(phantoms: RegisteredPhantoms, subject: Subject, change: float) -> TruePair:
    """Return a phantom and its true counterfactual on the grid of `phantoms`."""
    return true_pairs(phantoms, subject, [change])[0]


def true_pairs(
    phantoms: RegisteredPhantoms, subject: Subject, changes: Sequence[float]
) -> list[TruePair]:
    """Return a phantom with each of its true counterfactuals; its own head is drawn once."""
    before = with_severity(subject, 0.0)
    here = phantoms.template_points(before)
    own = _unit_interval(phantoms.draw(before, here))
    pairs = []
    for change in changes:
        # Both are drawn with one seed, that of the person and the month: the noise is the same.
        after = with_severity(subject, change)
        there = phantoms.template_points(after)
        way = _displacement(here.numpy(), there.numpy(), phantoms.affine)
        growth = np.zeros(own.shape, np.float32)
        factor = volume_factor(way, phantoms.affine)
        growth[phantoms.box] = np.where(own[phantoms.box] > 0, 100 * (factor - 1), 0)
        pairs.append(
            TruePair(
                subject_id=subject.subject_id,
                change=change,
                own=own,
                truth=_unit_interval(phantoms.draw(after, there)),
                volume_percent=growth,
            )
        )
    return pairs


def _unit_interval(levels: UInt8[np.ndarray, "X Y Z"]) -> Volume:
    return np.asarray(levels / np.float32(255), np.float32)


def _displacement(
    here: Float[np.ndarray, "I J K 3"],
    there: Float[np.ndarray, "I J K 3"],
    affine: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "I J K 3"]:
    """Return the way (mm) from each voxel to where the other head has the same tissue.

    `here` and `there` are the template's points at the voxels of the two heads. The heads differ
    by far less than they bend, so that their difference leads the rest of the way.
    """
    index = np.moveaxis(np.indices(here.shape[:3]), 0, -1).astype(np.float64)
    way = np.zeros_like(index)
    to_voxels = np.linalg.inv(affine[:3, :3]).T
    for _ in range(ROUNDS):
        place = np.moveaxis(index + way @ to_voxels, -1, 0)
        reached = np.stack(
            [
                ndimage.map_coordinates(there[..., i], place, order=1, mode="nearest")
                for i in range(3)
            ],
            axis=-1,
        )
        way += here - reached
    return way.astype(np.float32)
