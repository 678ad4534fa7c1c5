"""Time a whole reconstruction: the LDAE and a voxel-space diffusion autoencoder."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pipeline.models.inference import LdaeInference

ROUNDS = 2


def reconstruct(
    models: LdaeInference, volumes: Float[Tensor, "B X Y Z"]
) -> Float[Tensor, "B X Y Z"]:
    """Return reconstructions of volumes: encode, y_sem, inversion, sampling, decode."""
    codes = models.infer_codes(models.encode(volumes), volumes)
    return models.decode(models.sample(codes.y_sem, codes.x_T))


def measure_throughput(
    ways: Mapping[str, LdaeInference], volume: Float[Tensor, "1 X Y Z"], *, baseline: str
) -> dict[str, Any]:
    """Reconstruct one volume in every way, in turn, round by round; the first round is not counted.

    Returns
    -------
    dict
        `seconds`: way to its rounds; `faster`: way to how many times faster than `baseline` it
        is, median against median.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + ROUNDS):
        for name, models in ways.items():
            if not turn and name == baseline:
                continue  # slow, and its own rounds are long enough to hide what is loaded late
            started = time.perf_counter()
            reconstruct(models, volume)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    return {
        "seconds": seconds,
        "faster": {n: medians[baseline] / m for n, m in medians.items() if n != baseline},
    }
