"""The same meaning, other details: y_sem of a scan with random x_T."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import Outcome
from pipeline.models.inference import LdaeInference


def vary(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C x y z"],
    volume: Float[Tensor, "1 X Y Z"] | None = None,
    *,
    name: str,
    count: int,
    seed: int,
) -> Outcome:
    """Return `count` volumes of one y_sem; noise k depends on (seed, name, k) alone."""
    y_sem = models.embed(z_0, volume)

    def make(rows: slice) -> Tensor:
        draws = range(1, count + 1)[rows]
        x_T = torch.cat([models.random_noise(seed, name, k) for k in draws])
        return models.decode(models.sample(y_sem.expand(len(draws), -1), x_T))

    labels = [f"vary-{k}" for k in range(1, count + 1)]
    details = [{"draw": k} for k in range(1, count + 1)]
    return Outcome(make, labels, details, {"x_T": "random", "seed": seed})
