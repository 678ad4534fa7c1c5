"""Random changes of volumes: other heads and other scanners, or another scan of one head."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TURN = math.radians(6)
"""Standard deviation of the rotation about each axis: what registration may leave, and more."""
STRETCH = 0.06
"""Standard deviation of the logarithm of each axis' scale."""
SHIFT = 0.02
"""Standard deviation of the shift, as a share of the axis."""
CONTRAST = 0.2
"""Standard deviation of the logarithm of gamma."""
BLUR = (-0.08, 0.25)
"""Weight of both neighbours along an axis: from a sharper scan than the store's to thick slices."""

Volumes = Float[Tensor, "B 1 X Y Z"]


def augment(
    x: Volumes, share: float, generator: torch.Generator, *, strength: float = 1.0
) -> Volumes:
    """Return volumes in [0, 1], that share of them turned, stretched, blurred, of other contrast.

    Every scan has random numbers of its own, from the generator alone. `strength` multiplies every
    standard deviation and the blur.
    """
    chosen = _uniform(x, generator) < share
    changed = _blurred(_moved(x, generator, strength), generator, strength)
    return torch.where(chosen, _contrast(changed, generator, strength), x)


def _moved(x: Volumes, generator: torch.Generator, strength: float = 1.0) -> Volumes:
    count, device = len(x), x.device
    turn, log_stretch, shift = strength * _normal((3, count, 3), device, generator)
    a, b, c = (TURN * turn).unbind(1)
    nil = torch.zeros_like(a)
    skew = torch.stack([nil, -c, b, c, nil, -a, -b, a, nil], dim=1).view(count, 3, 3)
    linear = torch.matrix_exp(skew) @ torch.diag_embed((STRETCH * log_stretch).exp())
    # grid_sample counts axes backwards, each from -1 to 1 whatever its length.
    size = torch.tensor(x.shape[:1:-1], device=device, dtype=torch.float32)
    affine = torch.cat([linear * size / size[:, None], 2 * SHIFT * shift[..., None]], dim=2)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _blurred(x: Volumes, generator: torch.Generator, strength: float = 1.0) -> Volumes:
    low, high = strength * BLUR[0], strength * BLUR[1]
    for axis in (2, 3, 4):
        weight = low + (high - low) * _uniform(x, generator)
        # One axis in three, so that most scans are blurred along one, as thick slices are.
        weight = torch.where(_uniform(x, generator) < 1 / 3, weight, 0)
        pads = [0, 0] * (4 - axis) + [1, 1] + [0, 0] * (axis - 2)
        padded, length = F.pad(x, pads, mode="replicate"), x.shape[axis]
        both = padded.narrow(axis, 0, length) + padded.narrow(axis, 2, length)
        x = (1 - 2 * weight) * x + weight * both
    return x.clamp(0, 1)


def _contrast(x: Volumes, generator: torch.Generator, strength: float = 1.0) -> Volumes:
    gamma = strength * CONTRAST * _normal((len(x), 1, 1, 1, 1), x.device, generator)
    return x ** gamma.exp()


def _normal(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, device=device, generator=generator)


def _uniform(x: Volumes, generator: torch.Generator) -> Float[Tensor, "B 1 1 1 1"]:
    return torch.rand((len(x), 1, 1, 1, 1), device=x.device, generator=generator)
