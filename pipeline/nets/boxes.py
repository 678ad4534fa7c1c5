"""A volume through a network in overlapping boxes: less memory, a small error.

Group normalisation takes its statistics from a box alone, so that boxes and whole differ; where
boxes overlap they are blended by a Gaussian weight (MONAI's sliding window).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

OVERLAP = 0.25
"""Share of a box that it has in common with its neighbour."""


def in_boxes(
    apply: Callable[[Tensor], Tensor], x: Float[Tensor, "B C X Y Z"], box: tuple[int, ...]
) -> Float[Tensor, "B D x y z"]:
    """Return `apply` of a grid, box by box; its output may be on another grid."""
    from monai.inferers.utils import sliding_window_inference

    sides = tuple(min(a, b) for a, b in zip(box, x.shape[2:], strict=True))
    whole = sliding_window_inference(x, sides, 1, apply, overlap=OVERLAP, mode="gaussian")
    assert isinstance(whole, Tensor)
    return whole
