"""Counterfactuals: y_sem moved along a probe's direction, with the scan's own x_T."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes, TitledVolume, numbered
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.direction import Direction
from pipeline.models.inference import Codes, LdaeInference


@dataclass(frozen=True, kw_only=True)
class Counterfactuals(GeneratedVolumes):
    """Volumes of one scan whose y_sem is moved by each scale; its x_T is kept."""

    models: LdaeInference
    y_sem: Float[Tensor, "1 D"]
    x_T: Float[Tensor, "1 C x y z"]  # noqa: N815 (as in the paper)
    scales: Sequence[float]
    moved: Float[Tensor, "S D"]

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Sample these codes and decode them; the volume of scale 0 is made once for all."""
        chosen = range(len(self.scales))[rows]
        # In one batch with its neighbours scale 0 costs less than alone.
        made = [i for i in chosen if self.scales[i] != 0 or "unmoved" not in self.__dict__]
        by_row: dict[int, Tensor] = {}
        if made:
            x_T = self.x_T.expand(len(made), *self.x_T.shape[1:])
            volumes = self.models.decode(self.models.sample(self.moved[made], x_T))
            by_row = dict(zip(made, volumes, strict=True))
        for i in made:
            if self.scales[i] == 0:
                self.__dict__["unmoved"] = by_row[i]
        return torch.stack([self.unmoved if self.scales[i] == 0 else by_row[i] for i in chosen])

    @cached_property
    def unmoved(self) -> Float[Tensor, "X Y Z"]:
        """The volume of scale 0."""
        return self.models.decode(self.models.sample(self.y_sem, self.x_T))[0]

    def comparison(self) -> TitledVolume:
        """Return the volume of scale 0: pictures show what moving changed."""
        return TitledVolume("scale 0", self.unmoved.numpy())


def manipulate(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C X Y Z"],
    direction: Direction,
    scales: Sequence[float],
    *,
    volume: Float[Tensor, "1 X Y Z"] | None = None,
    named: Sequence[float] | None = None,
) -> GeneratedVolumes:
    """Return one volume a scale; scale 0 is the reconstruction.

    A scale is a number of standard deviations that y_sem of the probe's fitting scans has along
    the direction. `named` are published scales, if files are to be named by those.
    """
    if named is None:
        labels = numbered("scale", scales, digits=2, sign="+")
    else:
        labels = numbered("published-scale", named, digits=2, sign="+")
    return counterfactuals(
        models, models.infer_codes(z_0, volume), direction, scales, labels=labels
    )


def counterfactuals(
    models: LdaeInference,
    codes: Codes,
    direction: Direction,
    scales: Sequence[float],
    *,
    labels: list[str],
) -> Counterfactuals:
    """Return one volume a scale of one scan whose codes are known."""
    start = float(direction.position(codes.y_sem.double().cpu().numpy())[0])
    return Counterfactuals(
        models=models,
        y_sem=codes.y_sem,
        x_T=codes.x_T,
        scales=scales,
        moved=move(codes.y_sem, direction, scales),
        labels=labels,
        details=[
            {
                "scale": scale,
                "position": start + scale,
                "published_scale": direction.published(scale),
            }
            for scale in scales
        ],
        record={
            "x_T": "inverted",
            "inversion": latent_health(codes.x_T),
            "direction": direction.towards,
            "moved_along": "weight" if direction.pattern is None else "pattern",
            "scale_unit": direction.unit,
            "published_scale_unit": "s of n' = n + s · sqrt(dim) · weight, n standardised y_sem",
            "position_before": start,
        },
    )


def move(
    y_sem: Float[Tensor, "1 D"], direction: Direction, scales: Sequence[float]
) -> Float[Tensor, "S D"]:
    """Return y_sem moved by each scale: y + scale · step."""
    step = torch.as_tensor(direction.step, dtype=torch.float64)
    moved = y_sem.double().cpu() + torch.tensor(scales, dtype=torch.float64)[:, None] * step
    return moved.to(y_sem)
