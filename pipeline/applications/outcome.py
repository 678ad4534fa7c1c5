"""What an application returns."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outcome:
    """Volumes and how each was made."""

    volumes: Float[Tensor, "N X Y Z"]
    """In [0, 1], on the autoencoder's grid, on the host."""
    labels: list[str]
    """One a volume, unique; becomes part of its file's name."""
    details: list[dict[str, Any]]
    """One a volume: the numbers it was made with."""
    record: dict[str, Any]
    """What they have in common."""
