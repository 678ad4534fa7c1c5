"""Move y_sem along a probe's direction and keep all else: x_T stays the scan's own."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import Outcome, numbered
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.direction import Direction
from pipeline.models.inference import LdaeInference


def manipulate(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C X Y Z"],
    direction: Direction,
    scales: Sequence[float],
    *,
    volume: Float[Tensor, "1 X Y Z"] | None = None,
    named: Sequence[float] | None = None,
) -> Outcome:
    """Return one volume a scale; scale 0 is the reconstruction.

    A scale is a number of standard deviations that y_sem of the probe's fitting scans has along
    the direction. `named` are published scales, if files are to be named by those.
    """
    if named is None:
        labels = numbered("scale", scales, digits=2, sign="+")
    else:
        labels = numbered("published-scale", named, digits=2, sign="+")
    codes = models.infer_codes(z_0, volume)
    moved = move(codes.y_sem, direction, scales)
    x_T = codes.x_T.expand(len(scales), *codes.x_T.shape[1:])
    numbers = torch.arange(len(scales))

    @cache
    def unmoved() -> Tensor:
        return models.decode(models.sample(codes.y_sem, codes.x_T))

    def make(rows: slice) -> Float[Tensor, "B X Y Z"]:
        # Scale 0 is what pictures compare with: it is made once.
        chosen = numbers[rows].tolist()
        others = [i for i in chosen if scales[i] != 0]
        made = iter(models.decode(models.sample(moved[others], x_T[others])) if others else ())
        return torch.stack([unmoved()[0] if scales[i] == 0 else next(made) for i in chosen])

    start = float(direction.position(codes.y_sem.double().cpu().numpy())[0])
    details = [
        {"scale": scale, "position": start + scale, "published_scale": direction.published(scale)}
        for scale in scales
    ]
    record = {
        "x_T": "inverted",
        "inversion": latent_health(codes.x_T),
        "direction": direction.towards,
        "scale_unit": direction.unit,
        "published_scale_unit": "s of n' = n + s · sqrt(dim) · weight, n standardised y_sem",
        "position_before": start,
    }
    return Outcome(
        make,
        labels,
        details,
        record,
        beside=("scale 0", unmoved),
    )


def move(
    y_sem: Float[Tensor, "1 D"], direction: Direction, scales: Sequence[float]
) -> Float[Tensor, "S D"]:
    """Return y_sem moved by each scale: y + scale · spread · weight · std."""
    step = torch.as_tensor(direction.step, dtype=torch.float64)
    moved = y_sem.double().cpu() + torch.tensor(scales, dtype=torch.float64)[:, None] * step
    return moved.to(y_sem)
