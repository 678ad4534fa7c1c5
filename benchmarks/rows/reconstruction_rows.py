"""The row of whole reconstructions: LDAE against a voxel-space diffusion autoencoder."""

from pathlib import Path

import torch

from benchmarks.framework.harness import at_hand, race
from benchmarks.framework.registry import Measurement, Row, compare
from benchmarks.studies.voxel_dae import NARROW, OURS, SAME, machines, size_of
from pipeline.models.reconstruction_speed import reconstruct
from schemas.params import Params

STEPS = 4
GPU_BATCH = 8
"""One small scan at a time leaves a GPU idle."""


def measure_whole(folder: Path) -> Measurement:  # noqa: ARG001
    """Take volumes apart and put them together, all ways with the same sampler and steps."""
    params = Params()
    shape = params.preprocess.grid.shape
    batch = GPU_BATCH if at_hand().type == "cuda" else 1
    volumes = torch.rand(batch, *shape)
    ways = machines(params, STEPS, batch_size=batch)
    timed = race({name: lambda m=m: reconstruct(m, volumes) for name, m in ways.items()}, rounds=2)
    sizes = "; ".join(f"{name}: {size_of(models)} parameters" for name, models in ways.items())
    seconds = {way.name: way.median for way in timed}
    return compare(
        timed,
        ours=OURS,
        against=SAME,
        note=f"Grid {tuple(shape)}, {batch} at a time, {STEPS} steps each way, random weights."
        f" {sizes}. The middle one, narrow enough to be trained:"
        f" {seconds[NARROW] / seconds[OURS]:.1f}×.",
    )


ROWS = [
    Row(
        name="voxel-dae",
        what="whole reconstruction with the LDAE",
        against="the LDAE's networks on voxels, same grid and steps",
        measure=measure_whole,
        target=20,
        seconds=120,
    )
]
