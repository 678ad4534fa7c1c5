"""Encoding, loading, memory and verification, each against its yardstick in the same run.

python -m benchmarks.encode --out benchmarks/results/encode-cpu.md
"""

import argparse
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import NumpyReader
from monai.transforms import LoadImage

from benchmarks.harness import machine, race, table
from pipeline.artefact import write_artefact
from pipeline.frozen import FrozenAutoencoder, load_autoencoder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.precompute.encode import encode_volumes
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays, open_latents
from pipeline.stores.reading import OpenStore
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes, StoreKind

GRID = (32, 40, 32)
SMALL_LATENT = (3, 4, 5, 4)
NARROW = {"channels": (16, 32), "patch": 2}
TINY = {"channels": (8, 16), "patch": 4}


def attributes(kind: StoreKind, count: int) -> StoreAttributes:
    """Return the attributes of a synthetic store."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0]).tolist()
    return StoreAttributes(
        kind=kind,
        made_by="benchmark",
        params={"encode": {"precision": "fp32", "chunk_scans": 64}},
        digests={"autoencoder": "synthetic"},
        grid={"shape": list(GRID), "affine": affine, "orientation": "RAS"},
        scan_ids=[f"sub-{i:06d}" for i in range(count)],
        fingerprints=[f"synthetic-{i}" for i in range(count)],
    )


def synthetic_volumes(path: Path, count: int) -> VolumeStore:
    """Write noise in place of scans."""
    rng = np.random.default_rng(0)
    rows = (
        VolumeRow(
            volume=rng.integers(0, 256, GRID, dtype=np.uint8),
            native_to_mni=np.eye(4),
            native_affine=np.eye(4),
            native_shape=np.array(GRID, np.int32),
            intensity_range=np.array([0.0, 1.0]),
        )
        for _ in range(count)
    )
    write_volumes(path, attributes("volumes", count), rows)
    return open_volumes(path)


def untrained(path: Path, *, channels: tuple[int, ...], patch: int) -> FrozenAutoencoder:
    """Write and load an autoencoder with random weights."""
    shape = {
        "channels": channels,
        "patch": patch,
        "latent_channels": 3,
        "num_res_blocks": 1,
        "norm_groups": 8,
    }
    torch.manual_seed(0)
    config = {"architecture": shape, "grid": attributes("volumes", 0).grid}
    tensors = Autoencoder(**shape).state_dict()
    write_artefact(path, kind="ae", tensors=tensors, config=config, metrics={}, card="")
    return load_autoencoder(path, device=torch.device("cpu"))


def encode(volumes: VolumeStore, ae: FrozenAutoencoder, out: Path, **params: object) -> None:
    """Encode into a store that is not there yet."""
    shutil.rmtree(out, ignore_errors=True)
    encode_volumes(volumes, ae, out, EncodeParams(**params), device=torch.device("cpu"))


def encode_one_by_one(images: list[Path], ae: FrozenAutoencoder, out: Path) -> None:
    """Encode as is often done: one scan at a time, fp32, one compressed file each."""
    out.mkdir(exist_ok=True)
    load = LoadImage(image_only=True, ensure_channel_first=True)
    for image in images:
        with torch.inference_mode():
            mean, logvar = ae.net.encode(torch.as_tensor(load(image))[None])
        np.savez_compressed(
            out / f"{image.name.split('.')[0]}.npz", mean=mean.numpy()[0], logvar=logvar.numpy()[0]
        )


def write_images(volumes: VolumeStore, folder: Path) -> list[Path]:
    """Write every volume of a store as NIfTI."""
    images = []
    for row, scan_id in enumerate(volumes.attributes.scan_ids):
        images.append(folder / f"{scan_id}.nii.gz")
        image = volumes.read_unit_interval(slice(row, row + 1))[0, 0]
        nib.save(nib.Nifti1Image(image, np.eye(4)), images[-1])
    return images


def rates(folder: Path, volumes: VolumeStore) -> str:
    """Encode scans in four ways, and load them in three."""
    ae = untrained(folder / "narrow", **NARROW)
    images = write_images(volumes, folder)
    resident = torch.from_numpy(volumes.read_unit_interval(slice(0, len(volumes))))

    def bare() -> None:
        with torch.inference_mode():
            for batch in resident.split(4):
                ae.net.encode(batch)

    encoding = race(
        {
            "one by one: LoadImage, fp32, savez_compressed": lambda: encode_one_by_one(
                images, ae, folder / "npz"
            ),
            "pipeline encode, fp32": lambda: encode(volumes, ae, folder / "fp32.zarr"),
            "pipeline encode, bf16": lambda: encode(
                volumes, ae, folder / "bf16.zarr", precision="bf16"
            ),
            "bare forward on resident data, fp32": bare,
        },
        rounds=3,
    )
    by_name = {way.name: way.median for way in encoding}
    share = by_name["bare forward on resident data, fp32"] / by_name["pipeline encode, fp32"]
    store = open_latents(folder / "fp32.zarr")
    latents = store.load(store.attributes.scan_ids)
    files = sorted((folder / "npz").glob("*.npz"))
    index, generator = torch.randperm(len(files)), torch.Generator().manual_seed(0)
    load = LoadImage(reader=NumpyReader(npz_keys=["mean"]), image_only=True)
    loading = race(
        {
            "one npz a scan through LoadImage": lambda: [load(file) for file in files],
            "a draw from resident latents": lambda: latents.draw(index, generator=generator),
            "the whole store from disk": lambda: store.load(store.attributes.scan_ids),
        },
        rounds=5,
    )
    count = len(volumes)
    return (
        table(f"Encode {count} scans of {GRID}", encoding)
        + f"\nEncode runs at {share:.0%} of the bare forward's rate (fp32).\n\n"
        + table(f"Load a batch of {count} latents of {store.latent_shape}", loading)
        + "\nbf16 against fp32 latents, random weights: relative error"
        + f" {_bf16_error(folder):.2%}.\n"
    )


def _bf16_error(folder: Path) -> float:
    means = [
        open_latents(folder / f"{name}.zarr").read("posterior_mean").astype(np.float64)
        for name in ("fp32", "bf16")
    ]
    return float(np.linalg.norm(means[1] - means[0]) / np.linalg.norm(means[0]))


def peak_of(work: Callable[[], object]) -> float:
    """Return how far the memory of a child process rises (MB) while it works. Linux only."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child() -> None:
        torch.set_num_threads(1)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        work()
        send.send((_status("VmHWM") - before) / 1024)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    risen: float = receive.recv()
    process.join()
    return risen


def _status(name: str) -> int:
    (value,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(value)


def memory(folder: Path, counts: tuple[int, ...]) -> str:
    """Peak memory of encoding few and many scans."""
    ae = untrained(folder / "tiny", **TINY)
    lines = ["### Memory of encode", "", "| scans | peak above start, MB |", "|---|---|"]
    for count in counts:
        volumes = synthetic_volumes(folder / f"{count}.zarr", count)
        out = folder / f"l{count}.zarr"
        risen = peak_of(lambda v=volumes, o=out: encode(v, ae, o, batch_size=16))
        lines.append(f"| {count} | {risen:.0f} |")
    megabytes = np.prod(GRID) * counts[-1] / 1e6
    return "\n".join(lines) + f"\n\n{counts[-1]:,} volumes are {megabytes:.0f} MB as uint8.\n"


def verification(folder: Path, counts: tuple[int, ...]) -> str:
    """Open and verify stores of few and many scans."""
    lines = [
        f"### Open and verify, latents of {SMALL_LATENT}",
        "",
        "| scans | open s | verify s | size MB |",
        "|---|---|---|---|",
    ]
    for count in counts:
        path = folder / f"store{count}.zarr"
        arrays = latent_arrays(SMALL_LATENT, rows_per_chunk=64)
        builder = StoreBuilder(path, attributes("latents", count), arrays, unit_rows=64)
        rng = np.random.default_rng(0)
        for unit in builder.pending():
            values = rng.standard_normal((len(unit), *SMALL_LATENT)).astype(np.float16)
            builder.write(unit, {"posterior_mean": values, "posterior_logvar": values})
        builder.finish()
        started = time.perf_counter()
        OpenStore(path)
        opened = time.perf_counter()
        assert verify_store(path) == {}
        verified = time.perf_counter()
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
        lines.append(
            f"| {count:,} | {opened - started:.2f} | {verified - opened:.1f} | {size:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="what else the reader should know")
    parser.add_argument("--scans", type=int, default=32, help="scans to encode in the race")
    parser.add_argument("--many", type=int, default=1000, help="scans of the memory test")
    parser.add_argument("--store", type=int, default=100_000, help="scans of the store to verify")
    arguments = parser.parse_args()
    text = f"# Encode\n\n{machine()}. {arguments.note}\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: list[Callable[[], str]] = [
            # First: a forked child must not follow a parallel region.
            lambda: memory(folder, (arguments.many // 10, arguments.many)),
            lambda: rates(folder, synthetic_volumes(folder / "volumes.zarr", arguments.scans)),
            lambda: verification(folder, (arguments.store // 10, arguments.store)),
        ]
        for part in parts:
            text += "\n" + part()
            arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
