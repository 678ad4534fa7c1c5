"""The volumes that an application generates, batch by batch, and how each was made."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.inference import LdaeInference
from schemas.errors import ParamsError

MAX_DIGITS = 9


class TitledVolume(NamedTuple):
    """A volume that a picture shows under a title."""

    title: str
    volume: NDArray[np.float32]
    """(X, Y, Z) in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class GeneratedVolumes(ABC):
    """Volumes that are generated when they are asked for, so that any number fits in memory."""

    labels: list[str]
    """One a volume, unique; becomes part of its file's name."""
    details: list[dict[str, Any]]
    """One a volume: the numbers it was made with."""
    record: dict[str, Any]
    """What they have in common."""
    differences: frozenset[str] = frozenset()
    """Labels of volumes that are no brains but differences of intensities."""

    @abstractmethod
    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Return these volumes in [0, 1], on the autoencoder's grid, on the host."""

    def outcome(self) -> dict[str, Any]:
        """Return what is known of them once they are generated, for the JSON beside them."""
        return {}

    def comparison(self) -> TitledVolume | None:
        """Return the volume that pictures compare with, or None where that is the scan itself."""
        return None

    @cached_property
    def volumes(self) -> Float[Tensor, "N X Y Z"]:
        """All of them, in memory at once."""
        return self.generate(slice(0, len(self.labels)))


@dataclass(frozen=True, kw_only=True)
class VolumesOfCodes(GeneratedVolumes):
    """Volumes of codes that are known, one code a volume."""

    models: LdaeInference
    y_sem: Float[Tensor, "N D"]
    x_T: Float[Tensor, "N C x y z"]  # noqa: N815 (as in the paper)

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Sample and decode these codes."""
        return self.models.decode(self.models.sample(self.y_sem[rows], self.x_T[rows]))


def numbered(name: str, values: Sequence[float], *, digits: int, sign: str = "") -> list[str]:
    """Return a label a value, with as many digits, at least `digits`, as tell them apart.

    Raises
    ------
    ParamsError
        If a value is given twice.
    """
    for count in range(digits, MAX_DIGITS):
        labels = [f"{name}{value:{sign}.{count}f}" for value in values]
        if len(set(labels)) == len(labels):
            return labels
    raise ParamsError(f"{name}: {Counter(values).most_common(1)[0][0]:g} is given twice")
