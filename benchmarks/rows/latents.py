"""Rows of encoding and loading: rates, share of the bare forward, memory."""

import os
from pathlib import Path

import numpy as np
import torch
from monai.data import NumpyReader
from monai.transforms import LoadImage

from benchmarks.framework.harness import at_hand, exhaust, race
from benchmarks.framework.registry import Measurement, Row, compare
from benchmarks.rows.scale import LATENT, write_latents
from benchmarks.studies.encode import (
    GRID,
    NARROW,
    TINY,
    encode,
    encode_one_by_one,
    peak_of,
    synthetic_volumes,
    untrained,
    write_images,
)
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder, on_grid
from pipeline.stores.latents import open_latents

SCANS = 32
BATCH, BATCHES = 32, 20
FEW, MANY = 100, 1000
SHARE_GRID = (64, 80, 64)
"""Where the loader's share is judged: on tiny volumes, opening the store is what counts."""


def measure_batch(folder: Path) -> Measurement:
    """Make batches ready on the device from a resident store and from one file a scan."""
    store = open_latents(write_latents(folder / "latents.zarr", 256))
    latents = store.load(store.attributes.scan_ids)
    device = at_hand()
    latents = latents.to(device)
    files = []
    for row, mean in enumerate(store.read("posterior_mean")[:BATCH]):
        files.append(folder / f"{row}.npz")
        np.savez_compressed(files[-1], mean=mean.astype(np.float32))
    load = LoadImage(reader=NumpyReader(npz_keys=["mean"]), image_only=True)
    batches = [torch.randperm(len(latents))[:BATCH] for _ in range(BATCHES)]
    generator = torch.Generator(device).manual_seed(0)
    ours, theirs = "posterior means, resident store", "one npz a scan through LoadImage"
    timed = race(
        {
            theirs: lambda: exhaust(
                torch.stack([load(f) for f in files]).to(device) for _ in batches
            ),
            ours: lambda: exhaust(map(latents.take_mean, batches)),
            "fresh posterior draws, resident store": lambda: exhaust(
                latents.sample_posterior(index, generator=generator) for index in batches
            ),
        },
        rounds=9,
    )
    draw = timed[0].median / timed[2].median
    return compare(
        timed,
        ours=ours,
        against=theirs,
        note=f"{BATCHES} batches of {BATCH} latents of {LATENT}; both give the stored value as"
        " float32.",
        **{"ratio of a fresh posterior draw": draw},
    )


def measure_encode(folder: Path) -> Measurement:
    """Encode a volume store, and the same images one by one in the obvious way."""
    volumes = synthetic_volumes(folder / "volumes.zarr", SCANS)
    ae = untrained(folder / "ae", **NARROW)
    images = write_images(volumes, folder)
    ours, theirs = "pipeline encode, as it comes", "one by one: LoadImage, fp32, savez_compressed"
    timed = race(
        {
            theirs: lambda: encode_one_by_one(images, ae, folder / "npz"),
            ours: lambda: encode(volumes, ae, folder / "l.zarr"),
            "pipeline encode, fp32": lambda: encode(
                volumes, ae, folder / "fp32.zarr", precision="fp32"
            ),
        },
        rounds=5,
    )
    return compare(timed, ours=ours, against=theirs, note=f"{SCANS} scans of {GRID}.")


def measure_share(folder: Path) -> Measurement:
    """Encode a volume store, and run the same forward passes on data already there."""
    volumes = synthetic_volumes(folder / "volumes.zarr", SCANS, SHARE_GRID)
    bundled = load_autoencoder(bundled_autoencoder(), device=at_hand())
    ae = on_grid(bundled, volumes.attributes.grid)
    resident = torch.from_numpy(volumes.read_unit_interval(slice(0, len(volumes)))).to(at_hand())

    def bare() -> None:
        with torch.inference_mode():
            for batch in resident.split(4):
                ae.net.encode(batch)

    ours, theirs = "pipeline encode, fp32", "bare forward on resident data"
    timed = race(
        {theirs: bare, ours: lambda: encode(volumes, ae, folder / "l.zarr", precision="fp32")},
        rounds=3,
    )
    result = compare(timed, ours=ours, against=theirs)
    return Measurement(
        value=100 * result.value,
        rounds=result.rounds,
        numbers={k: 100 * v for k, v in result.numbers.items()},
        note=f"{SCANS} scans of {SHARE_GRID}, the bundled autoencoder.",
    )


def measure_memory(folder: Path) -> Measurement:
    """Compare the peak memory of encoding few and many scans: the host's, on the CPU alone."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    ae = untrained(folder / "ae", **TINY)
    risen = {}
    for count in (FEW, MANY):
        volumes = synthetic_volumes(folder / f"{count}.zarr", count)
        out = folder / f"l{count}.zarr"
        risen[count] = peak_of(
            lambda v=volumes, o=out: encode(v, ae, o, batch_size=16, precision="fp32")
        )
    data = float(np.prod(GRID)) * (MANY - FEW) / 1e6
    return Measurement(
        value=risen[MANY] - risen[FEW],
        numbers={f"peak above start, {count} scans, MB": mb for count, mb in risen.items()},
        note=f"The {MANY - FEW} further scans of {GRID} are {data:.0f} MB as uint8.",
    )


ROWS = [
    Row(
        name="batch",
        what="batch of latents ready on the device",
        against="one compressed npz a scan through MONAI's LoadImage",
        measure=measure_batch,
        target=150,
        seconds=15,
    ),
    Row(
        name="encode-share",
        what="encode from volumes.zarr, share of the rate",
        against="the AE forward alone on resident data",
        measure=measure_share,
        target=90,
        unit="%",
        seconds=30,
    ),
    Row(
        name="encode-memory",
        what="peak memory of encode, 1000 scans above 100",
        against="–",
        measure=measure_memory,
        target=20,
        unit="MB",
        seconds=30,
    ),
    Row(
        name="encode",
        what="encode",
        against="one-by-one fp32 loop with savez_compressed",
        measure=measure_encode,
        target=2,
        seconds=30,
    ),
]
