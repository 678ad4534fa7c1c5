"""The row of whole reconstructions: LDAE against a voxel-space diffusion autoencoder."""

from pathlib import Path

import torch

from benchmarks.harness import race
from benchmarks.registry import Measurement, Row, compare
from benchmarks.voxel_dae import machines, size_of
from pipeline.evaluation.throughput import reconstruct
from schemas.params import Params

STEPS = 4


def measure_whole(folder: Path) -> Measurement:  # noqa: ARG001
    """Take a volume apart and put it together, both ways with the same sampler and steps."""
    params = Params()
    shape = params.preprocess.grid.shape
    volume = torch.rand(1, *shape)
    ways = machines(params, STEPS)
    theirs, ours = "voxel DAE, the LDAE's denoiser", "LDAE"
    narrow = "voxel DAE, as `train-voxel-dae` makes it"
    names = (theirs, narrow, ours)
    timed = race({name: lambda m=ways[name]: reconstruct(m, volume) for name in names}, rounds=2)
    sizes = "; ".join(f"{name}: {size_of(ways[name])} parameters" for name in names)
    seconds = {way.name: way.median for way in timed}
    return compare(
        timed,
        ours=ours,
        against=theirs,
        note=f"Grid {tuple(shape)}, {STEPS} steps each way, random weights. {sizes}. The last but"
        f" one, narrow enough to be trained: {seconds[narrow] / seconds[ours]:.1f}×.",
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
