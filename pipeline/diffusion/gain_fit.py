"""How loud what training learned of G should be at each timestep, by people it did not learn from.

The weighted loss of stage 2 hardly counts the noisiest timesteps, and training ends long before the
quiet ones are learned: there the field of G is too loud, here too quiet (docs/method.md). One
factor a timestep mends both, and where the field does not help people outside the fit it is 0, so
that the closed form of the modes is left.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_PEOPLE = 3
"""Validation people for a fit; with fewer, leaving one out says nothing."""
MOST_GAIN = 8.0


def best_gain(
    missing: Float[Tensor, "scan node"], learned: Float[Tensor, "scan node"], people: Sequence[str]
) -> Float[Tensor, " node"]:
    """Return the factor at each timestep that leaves the smallest error of the noise.

    It is 0 where factors fitted without a person do not lessen the error of that person, summed
    over people.

    Parameters
    ----------
    missing
        Field of G times what the closed form misses of the noise, summed over voxels.
    learned
        The field's sum of squares.
    people
        (scan,): whose scan it is.
    """
    names = sorted(set(people))
    rows = torch.tensor([names.index(name) for name in people])
    own = [
        torch.zeros(len(names), sums.shape[1], dtype=sums.dtype).index_add_(0, rows, sums)
        for sums in (missing, learned)
    ]
    without = [sums.sum(0) - sums for sums in own]
    apart = _ratio(*without)
    change = (apart.square() * own[1] - 2 * apart * own[0]).sum(0)
    return _ratio(missing.sum(0), learned.sum(0)) * (change < 0)


def _ratio(missing: Tensor, learned: Tensor) -> Tensor:
    return (missing / learned.clamp_min(1e-30)).clamp(0, MOST_GAIN)
