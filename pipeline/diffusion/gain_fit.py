"""How loud a learned field should be at each timestep, by people it was not learned from.

The weighted loss of stage 2 hardly counts the noisiest timesteps, and training ends long before the
quiet ones are learned: there the field of G is too loud, here too quiet (docs/method.md). One
factor a timestep mends both, and where the field does not help people outside the fit it is 0, so
that the closed form of the modes is left.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.schedule import Schedule

LEAST_PEOPLE = 3
"""Validation people for a fit; with fewer, leaving one out says nothing."""
MOST_GAIN = 8.0


def weights_at_nodes(
    scans: Iterable[tuple[Tensor, Tensor, Tensor]],
    people: Sequence[str],
    schedule: Schedule,
    steps: Int[Tensor, " node"],
    with_and_without: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    *,
    most: float = MOST_GAIN,
) -> Float[Tensor, " node"]:
    """Return the best weight, timestep by timestep, of what is added to a predicted noise.

    Parameters
    ----------
    scans
        z_0 (1, C, X, Y, Z), y_sem (1, D) and noise (node, C, X, Y, Z) of each.
    people
        Whose scans they are.
    steps
        Timesteps of the nodes.
    with_and_without
        Returns, of x_t, t and y_sem, the noise without it and with it.
    most
        Largest weight.
    """
    missing, learned = [], []
    for z_0, y_sem, eps in scans:
        x_t = schedule.add_noise(z_0.expand_as(eps), eps, steps)
        without, whole = with_and_without(x_t, steps.float(), y_sem.expand(len(steps), -1))
        field = (whole - without).flatten(1).double()
        missing.append((field * (eps - without).flatten(1)).sum(1))
        learned.append(field.square().sum(1))
    return best_gain(torch.stack(missing).cpu(), torch.stack(learned).cpu(), people, most=most)


def best_gain(
    missing: Float[Tensor, "scan node"],
    learned: Float[Tensor, "scan node"],
    people: Sequence[str],
    *,
    most: float = MOST_GAIN,
) -> Float[Tensor, " node"]:
    """Return the factor at each timestep that leaves the smallest error of the noise.

    It is 0 where factors fitted without a person do not lessen the error of that person, summed
    over people.

    Parameters
    ----------
    missing
        The field times what is missing without it of the noise, summed over voxels.
    learned
        The field's sum of squares.
    people
        (scan,): whose scan it is.
    most
        Largest factor.
    """
    names = sorted(set(people))
    rows = torch.tensor([names.index(name) for name in people])
    own = [
        torch.zeros(len(names), sums.shape[1], dtype=sums.dtype).index_add_(0, rows, sums)
        for sums in (missing, learned)
    ]
    missed, heard = (sums.sum(0) - sums for sums in own)
    apart = _ratio(missed, heard, most)
    change = (apart.square() * own[1] - 2 * apart * own[0]).sum(0)
    return _ratio(missing.sum(0), learned.sum(0), most) * (change < 0)


def _ratio(missing: Tensor, learned: Tensor, most: float) -> Tensor:
    return (missing / learned.clamp_min(1e-30)).clamp(0, most)
