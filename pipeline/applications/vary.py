"""Variations of a scan: its y_sem with random x_T."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes
from pipeline.models.inference import LdaeInference


@dataclass(frozen=True, kw_only=True)
class Variations(GeneratedVolumes):
    """Volumes of one y_sem; the noise of variation k depends on (seed, name, k) alone."""

    models: LdaeInference
    y_sem: Float[Tensor, "1 D"]
    name: str
    seed: int

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Sample these variations and decode them."""
        numbers = range(1, len(self.labels) + 1)[rows]
        x_T = torch.cat([self.models.random_noise(self.seed, self.name, k) for k in numbers])
        return self.models.decode(self.models.sample(self.y_sem.expand(len(numbers), -1), x_T))


def vary(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C x y z"],
    volume: Float[Tensor, "1 X Y Z"] | None = None,
    *,
    name: str,
    count: int,
    seed: int,
) -> GeneratedVolumes:
    """Return `count` volumes of one y_sem; noise k depends on (seed, name, k) alone."""
    return variations(models, models.embed(z_0, volume), name=name, count=count, seed=seed)


def variations(
    models: LdaeInference, y_sem: Float[Tensor, "1 D"], *, name: str, count: int, seed: int
) -> Variations:
    """Return `count` volumes of a y_sem that is known."""
    numbers = range(1, count + 1)
    return Variations(
        models=models,
        y_sem=y_sem,
        name=name,
        seed=seed,
        labels=[f"vary-{k}" for k in numbers],
        details=[{"draw": k} for k in numbers],
        record={"x_T": "random", "seed": seed},
    )
