"""Rows of the paper preset that need a GPU: encoding, decoding, whole reconstructions."""

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.framework.harness import at_hand, race
from benchmarks.framework.registry import Measurement, Row, compare
from benchmarks.rows.gpu_training import matmul_rate, operations, paper, peak_gb
from benchmarks.studies.encode import (
    encode,
    encode_one_by_one,
    synthetic_volumes,
    untrained,
    write_images,
)
from benchmarks.studies.voxel_dae import NARROW, OURS, machines, size_of
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.models.reconstruction_speed import reconstruct

SCANS = 192
"""So many that starting and ending, a quarter of a second, count little."""
FEW = 16
BATCH = 4
STEPS = 4


def paper_autoencoder(folder: Path) -> FrozenAutoencoder:
    """Return the paper's autoencoder with random weights, on the GPU."""
    params = paper()
    ae = params.train_ae
    return untrained(
        folder / "ae",
        channels=ae.channels,
        patch=ae.patch,
        num_res_blocks=ae.num_res_blocks,
        norm_groups=ae.norm_groups,
        grid=params.preprocess.grid.shape,
    )


def measure_share(folder: Path) -> Measurement:
    """Encode a volume store, and run the same forward passes on data already there."""
    params, ae = paper(), paper_autoencoder(folder)
    shape = params.preprocess.grid.shape
    volumes = synthetic_volumes(folder / "volumes.zarr", SCANS, shape)
    x = torch.from_numpy(volumes.read_unit_interval(slice(0, BATCH))).to(at_hand())

    def bare() -> None:
        with torch.inference_mode(), torch.autocast(at_hand().type, torch.bfloat16):
            for _ in range(SCANS // BATCH):
                ae.net.encode(x)

    ours, theirs = "pipeline encode, bf16", "bare forward on resident data, bf16"
    timed = race(
        {
            theirs: bare,
            ours: lambda: encode(
                volumes, ae, folder / "l.zarr", precision="bf16", batch_size=BATCH, chunk_scans=16
            ),
        },
        rounds=3,
    )
    result, peak = compare(timed, ours=ours, against=theirs), peak_gb()
    seconds = {way.name: way.median for way in timed}
    with torch.inference_mode(), torch.autocast(at_hand().type, torch.bfloat16):
        flop = operations(lambda: ae.net.encode(x)) / BATCH
    share = flop * SCANS / seconds[theirs] / matmul_rate()
    return Measurement(
        value=100 * result.value,
        rounds=result.rounds,
        numbers={
            "scans a second": SCANS / seconds[ours],
            "TFLOP a scan": flop / 1e12,
            "bare forward, share of the matmul rate, %": 100 * share,
            **peak,
        },
        note=f"{SCANS} scans of {shape}, {BATCH} at a time.",
    )


def measure_loop(folder: Path) -> Measurement:
    """Encode a volume store, and the same images one by one in the obvious way."""
    params, ae = paper(), paper_autoencoder(folder)
    shape = params.preprocess.grid.shape
    volumes = synthetic_volumes(folder / "volumes.zarr", FEW, shape)
    images = write_images(volumes, folder)
    ours, theirs = "pipeline encode, bf16", "one by one: LoadImage, fp32, savez_compressed"
    timed = race(
        {
            theirs: lambda: encode_one_by_one(images, ae, folder / "npz"),
            ours: lambda: encode(
                volumes, ae, folder / "l.zarr", precision="bf16", batch_size=BATCH
            ),
        },
        rounds=3,
    )
    return compare(timed, ours=ours, against=theirs, note=f"{FEW} scans of {shape}.")


def measure_decode(folder: Path) -> Measurement:
    """Decode latents of the paper's size."""
    params, ae = paper(), paper_autoencoder(folder)
    shape = ae.net.latent_shape(params.preprocess.grid.shape)
    z = torch.randn(1, *shape, device=at_hand())

    def decode(bf16: bool) -> None:
        with torch.inference_mode(), torch.autocast(at_hand().type, torch.bfloat16, enabled=bf16):
            ae.net.decode(z)

    timed = race({"fp32": lambda: decode(False), "bf16": lambda: decode(True)}, rounds=10)
    flop, rate = operations(lambda: decode(True)), matmul_rate()
    return Measurement(
        value=timed[1].median,
        rounds={way.name: way.seconds for way in timed},
        numbers={
            "TFLOP a scan": flop / 1e12,
            "share of the matmul rate, bf16, %": 100 * flop / timed[1].median / rate,
            **peak_gb(),
        },
        note=f"One latent of {shape}.",
    )


def measure_reconstruction(folder: Path) -> Measurement:  # noqa: ARG001
    """Take volumes of the paper's grid apart and put them together."""
    params = paper()
    shape, steps = params.preprocess.grid.shape, params.evaluate.num_inference_steps
    ways = machines(params, STEPS, only=(NARROW, OURS), batch_size=BATCH)
    volumes = torch.rand(BATCH, *shape)
    timed = race({name: lambda m=m: reconstruct(m, volumes) for name, m in ways.items()}, rounds=3)
    whole = replace(ways[OURS], num_inference_steps=steps)
    (long,) = race({f"LDAE, {steps} steps": lambda: reconstruct(whole, volumes)}, rounds=3)
    result = compare(
        timed,
        ours=OURS,
        against=NARROW,
        note=f"Grid {shape}, {BATCH} at a time, {STEPS} steps each way, random weights."
        f" {'; '.join(f'{name}: {size_of(m)} parameters' for name, m in ways.items())}.",
        **{f"{long.name} each way, s a scan": long.median / BATCH},
        **peak_gb(),
    )
    result.rounds[long.name] = long.seconds
    return result


ROWS = [
    Row(
        name="paper-encode",
        what="encode of the paper preset, share of the rate",
        against="the AE forward alone on resident data",
        measure=measure_share,
        target=90,
        unit="%",
        gpu_only=True,
    ),
    Row(
        name="paper-encode-loop",
        what="encode of the paper preset",
        against="one-by-one fp32 loop with savez_compressed",
        measure=measure_loop,
        target=4,
        gpu_only=True,
    ),
    Row(
        name="paper-decode",
        what="decode of the paper preset, a scan",
        against="–",
        measure=measure_decode,
        target=None,
        unit="s",
        gpu_only=True,
    ),
    Row(
        name="paper-voxel-dae",
        what="whole reconstruction at the paper's grid with the paper's LDAE",
        against="the narrow voxel-space DAE, same grid and steps",
        measure=measure_reconstruction,
        target=20,
        gpu_only=True,
    ),
]
