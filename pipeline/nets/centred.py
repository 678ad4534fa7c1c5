"""Fields of one latent grid on another that has the same centre."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def centred(field: Float[Tensor, "*B X Y Z"], shape: Sequence[int]) -> Float[Tensor, "*B x y z"]:
    """Return a field cut about its centre to `shape`, and filled up with zeros where it is smaller.

    The difference along each axis must be even, so that voxels of both grids coincide.
    """
    missing = [wanted - own for wanted, own in zip(shape, field.shape[-3:], strict=True)]
    if not any(missing):
        return field
    assert not any(n % 2 for n in missing), (tuple(field.shape), tuple(shape))
    return F.pad(field, [n // 2 for n in reversed(missing) for _ in range(2)])


def placed(
    field: Float[Tensor, "*B x y z"], around: Float[Tensor, "*B X Y Z"]
) -> Float[Tensor, "*B X Y Z"]:
    """Return a field in the middle of another, on the same or a larger grid with its centre."""
    i, j, k = (
        slice((whole - own) // 2, (whole + own) // 2)
        for whole, own in zip(around.shape[-3:], field.shape[-3:], strict=True)
    )
    filled = around.clone()
    filled[..., i, j, k] = field
    return filled
