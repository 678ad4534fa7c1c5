"""What an application returns."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from schemas.errors import ParamsError

MAX_DIGITS = 9


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


@dataclass(frozen=True)
class Outcome:
    """Volumes, made when they are asked for, and how each is made."""

    make: Callable[[slice], Float[Tensor, "B X Y Z"]]
    """Makes some of them: in [0, 1], on the autoencoder's grid, on the host."""
    labels: list[str]
    """One a volume, unique; becomes part of its file's name."""
    details: list[dict[str, Any]]
    """One a volume: the numbers it was made with."""
    record: dict[str, Any]
    """What they have in common."""
    beside: tuple[str, Callable[[], Float[Tensor, "1 X Y Z"]]] | None = None
    """What pictures compare them with and how it is made, where that is not the scan itself."""

    @cached_property
    def volumes(self) -> Float[Tensor, "N X Y Z"]:
        """All of them, in memory at once."""
        return self.make(slice(0, len(self.labels)))
