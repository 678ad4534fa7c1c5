"""Encoding, loading, memory and verification, each against its yardstick in the same run.

python -m benchmarks.studies.encode --out benchmarks/results/encode-cpu.md
"""

import argparse
import multiprocessing
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import NumpyReader
from monai.transforms import LoadImage

from benchmarks.framework.harness import at_hand, exhaust, machine, race, table
from pipeline.encoding.run import encode_volumes
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.artefact import write_artefact
from pipeline.models.frozen import FrozenAutoencoder, for_volumes, load_autoencoder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays, open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes, StoreKind

GRID = (32, 40, 32)
SMALL_LATENT = (3, 4, 5, 4)
PAPER_LATENT = (3, 16, 20, 16)
NARROW = {"channels": (16, 32), "patch": 2}
BATCHES = 20
TINY = {"channels": (8, 16), "patch": 4}


Shape = tuple[int, int, int]


def attributes(kind: StoreKind, count: int, grid: Shape = GRID) -> StoreAttributes:
    """Return the attributes of a synthetic store."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0]).tolist()
    return StoreAttributes(
        kind=kind,
        made_by="benchmark",
        params={"encode": {"precision": "fp32", "chunk_scans": 64}},
        digests={"autoencoder": "synthetic"},
        grid={"shape": list(grid), "affine": affine, "orientation": "RAS"},
        scan_ids=[f"sub-{i:06d}" for i in range(count)],
        fingerprints=[f"synthetic-{i}" for i in range(count)],
    )


def synthetic_volumes(path: Path, count: int, grid: Shape = GRID) -> VolumeStore:
    """Write noise in place of scans."""
    rng = np.random.default_rng(0)
    rows = (
        VolumeRow(
            volume=rng.integers(0, 256, grid, dtype=np.uint8),
            native_to_mni=np.eye(4),
            native_affine=np.eye(4),
            native_shape=np.array(grid, np.int32),
            intensity_range=np.array([0.0, 1.0]),
        )
        for _ in range(count)
    )
    write_volumes(path, attributes("volumes", count, grid), rows)
    return open_volumes(path)


def some_volumes(source: Path | None, path: Path, count: int) -> VolumeStore:
    """Return the first volumes of a store as a store of their own, or noise."""
    if source is None:
        return synthetic_volumes(path, count)
    whole = open_volumes(source)
    part = whole.attributes.model_copy(
        update={
            "complete": False,
            "scan_ids": whole.attributes.scan_ids[:count],
            "fingerprints": whole.attributes.fingerprints[:count],
        }
    )
    write_volumes(path, part, (whole.read_row(row) for row in range(len(part.scan_ids))))
    return open_volumes(path)


def untrained(
    path: Path,
    *,
    channels: tuple[int, ...],
    patch: int,
    num_res_blocks: int = 1,
    norm_groups: int = 8,
    grid: Shape = GRID,
) -> FrozenAutoencoder:
    """Write and load an autoencoder with random weights."""
    shape = {
        "channels": channels,
        "patch": patch,
        "latent_channels": 3,
        "num_res_blocks": num_res_blocks,
        "norm_groups": norm_groups,
    }
    torch.manual_seed(0)
    config = {"architecture": shape, "grid": attributes("volumes", 0, grid).grid.document()}
    tensors = Autoencoder(**shape).state_dict()
    write_artefact(path, kind="ae", tensors=tensors, config=config, metrics={}, card="")
    return load_autoencoder(path, device=at_hand())


def encode(volumes: VolumeStore, ae: FrozenAutoencoder, out: Path, **params: object) -> None:
    """Encode into a store that is not there yet."""
    shutil.rmtree(out, ignore_errors=True)
    chosen = EncodeParams.model_validate(params)
    encode_volumes(volumes, ae, out, chosen, device=at_hand())


def encode_one_by_one(images: list[Path], ae: FrozenAutoencoder, out: Path) -> None:
    """Encode as is often done: one scan at a time, fp32, one compressed file each."""
    out.mkdir(exist_ok=True)
    load = LoadImage(image_only=True, ensure_channel_first=True)
    for image in images:
        with torch.inference_mode():
            posterior = ae.net.encode(torch.as_tensor(load(image))[None].to(at_hand()))
        mean, logvar = (values.cpu().numpy()[0] for values in posterior)
        np.savez_compressed(out / f"{image.name.split('.')[0]}.npz", mean=mean, logvar=logvar)


def write_images(volumes: VolumeStore, folder: Path) -> list[Path]:
    """Write every volume of a store as NIfTI."""
    images = []
    for row, scan_id in enumerate(volumes.attributes.scan_ids):
        images.append(folder / f"{scan_id}.nii.gz")
        image = volumes.read_unit_interval(slice(row, row + 1))[0, 0]
        nib.save(nib.Nifti1Image(image, np.eye(4)), images[-1])
    return images


def rates(folder: Path, volumes: VolumeStore, ae: FrozenAutoencoder) -> str:
    """Encode scans in four ways."""
    images = write_images(volumes, folder)
    device = at_hand()
    resident = torch.from_numpy(volumes.read_unit_interval(slice(0, len(volumes)))).to(device)

    def bare(precision: str) -> None:
        bf16 = precision == "bf16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for batch in resident.split(4):
                ae.net.encode(batch)

    ways = {
        "one by one: LoadImage, fp32, savez_compressed": lambda: encode_one_by_one(
            images, ae, folder / "npz"
        )
    }
    for precision in ("fp32", "bf16"):
        ways[f"bare forward on resident data, {precision}"] = partial(bare, precision)
        ways[f"pipeline encode, {precision}"] = partial(
            encode, volumes, ae, folder / f"{precision}.zarr", precision=precision
        )
    encoding = race(ways, rounds=5)
    seconds = {way.name: way.seconds for way in encoding}
    text = table(f"Encode {len(volumes)} scans of {volumes.array('volume').shape[1:]}", encoding)
    for precision in ("fp32", "bf16"):
        bare_s = seconds[f"bare forward on resident data, {precision}"]
        ours_s = seconds[f"pipeline encode, {precision}"]
        shares = [x / y for x, y in zip(bare_s, ours_s, strict=True)]
        text += (
            f"\n{precision}: encode runs at {statistics.median(shares):.0%} of the bare forward's"
            f" rate (median of the rounds; {min(shares):.0%} to {max(shares):.0%}).\n"
        )
    return text


def loading(folder: Path, count: int = 64) -> str:
    """Make a batch of latents of the paper's size ready: posterior mean, float32."""
    arrays = latent_arrays(PAPER_LATENT, rows_per_chunk=64)
    path = folder / "paper.zarr"
    builder = StoreBuilder(path, attributes("latents", 16 * count), arrays, unit_rows=64)
    rng = np.random.default_rng(0)
    (folder / "paper").mkdir()
    for unit in builder.pending():
        mean = rng.standard_normal((len(unit), *PAPER_LATENT), dtype=np.float32)
        content = {"posterior_mean": mean, "posterior_logvar": mean - 4}
        builder.write(unit, {name: values.astype(np.float16) for name, values in content.items()})
        for row in range(count if unit.start == 0 else 0):
            name = folder / "paper" / f"{row:03d}.npz"
            np.savez_compressed(name, mean=mean[row], logvar=mean[row] - 4)
    builder.finish()
    store = open_latents(path)
    latents = store.load(store.attributes.scan_ids)
    batches = [torch.from_numpy(rng.permutation(len(latents))[:count]) for _ in range(BATCHES)]
    files = sorted((folder / "paper").glob("*.npz"))
    load = LoadImage(reader=NumpyReader(npz_keys=["mean"]), image_only=True)
    generator = torch.Generator().manual_seed(0)
    timed = race(
        {
            "one npz a scan through LoadImage": lambda: exhaust(
                torch.stack([load(f) for f in files]) for _ in batches
            ),
            "posterior means of resident latents": lambda: exhaust(map(latents.take_mean, batches)),
            "fresh posterior draws of resident latents": lambda: exhaust(
                latents.sample_posterior(i, generator=generator) for i in batches
            ),
        },
        rounds=9,
    )
    return table(f"{BATCHES} batches of {count} latents of {PAPER_LATENT}", timed)


def agreement(folder: Path, volumes: VolumeStore, ae: FrozenAutoencoder) -> str:
    """Compare latents of bf16 with those of fp32, and what is decoded from both."""
    stores = {name: open_latents(folder / f"{name}.zarr") for name in ("fp32", "bf16")}
    means = {
        name: store.read("posterior_mean").astype(np.float32) for name, store in stores.items()
    }
    error = np.linalg.norm(means["bf16"] - means["fp32"]) / np.linalg.norm(means["fp32"])
    text = f"### bf16 against fp32 latents\n\nRelative error of the means: {error:.2%}.\n"
    ssim = {}
    for name, mean in means.items():
        rows = []
        for row in range(len(volumes)):
            reference = torch.from_numpy(volumes.read_unit_interval(slice(row, row + 1)))
            with torch.inference_mode():
                decoded = ae.net.decode(torch.from_numpy(mean[row : row + 1]).to(at_hand())).cpu()
            rows.append(reconstruction_metrics(reference, decoded, reference > 0))
        ssim[name] = pd.concat(rows, ignore_index=True)["ssim_brain"]
    change = (ssim["bf16"] - ssim["fp32"]).abs().max()
    return text + (
        f"\nDecoded from them (in fp32), SSIM in the brain: {ssim['fp32'].mean():.4f} (fp32) and"
        f" {ssim['bf16'].mean():.4f} (bf16); largest change of a scan {change:.1e}.\n"
    )


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
        risen = peak_of(lambda v=volumes, o=out: encode(v, ae, o, precision="fp32"))
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
    parser.add_argument("--few", type=int, default=100, help="scans of the memory test")
    parser.add_argument("--many", type=int, default=5000, help="scans of the memory test")
    parser.add_argument("--store", type=int, default=100_000, help="scans of the store to verify")
    parser.add_argument("--ae", type=Path, help="a trained autoencoder; else one of random weights")
    parser.add_argument("--volumes", type=Path, help="volumes for it; else noise")
    parser.add_argument("--parts", default="memory,rates,loading,verification")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = f"# Encode\n\n{machine()}, one thread. {arguments.note}\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def rates_and_agreement() -> str:
            volumes = some_volumes(arguments.volumes, folder / "volumes.zarr", arguments.scans)
            if arguments.ae is None:
                ae = untrained(folder / "narrow", **NARROW)
            else:
                trained = load_autoencoder(arguments.ae, device=at_hand())
                ae = for_volumes(trained, volumes.attributes.grid)
            return rates(folder, volumes, ae) + "\n" + agreement(folder, volumes, ae)

        parts: dict[str, Callable[[], str]] = {
            # First: a forked child must not follow a parallel region.
            "memory": lambda: memory(folder, (arguments.few, arguments.many)),
            "rates": rates_and_agreement,
            "loading": lambda: loading(folder),
            "verification": lambda: verification(folder, (arguments.store // 10, arguments.store)),
        }
        for part in arguments.parts.split(","):
            text += "\n" + parts[part]()
            arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
