"""The bundled autoencoder on boxes smaller than the one it was trained on, with and without air.

python -m benchmarks.studies.cropped_volumes --study my-study --out benchmarks/results/boxes.md

Takes the test scans of a study on the autoencoder's own grid and cuts their border away, so that
every box holds the same brains, nothing resampled.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.stores.volumes import open_volumes

CUTS = [(0, 0, 0), (4, 4, 4), (4, 8, 4)]
"""Voxels off both ends of each axis."""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="A folder made by dvc repro.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    volumes = open_volumes(options.study / "data" / "volumes.zarr")
    cohort = pd.read_csv(options.study / "data" / "cohort" / "manifest.csv")
    test = [s for s in cohort.scan_id[cohort.split == "test"] if s in volumes.row_of]
    lines = [
        f"{len(test)} test scans of one study, posterior mean decoded, inside the brain.\n",
        "| box | air around it | SSIM | PSNR (dB) | slope of voxels out on voxels in |",
        "|---|---|---|---|---|",
    ]
    for cut in CUTS:
        for air in (True, False) if any(cut) else (True,):
            rows = pd.DataFrame(judge(volumes.load_unit_interval([s]), cut, air) for s in test)
            box, ssim, psnr, slope = rows.box[0], rows.ssim.mean(), rows.psnr.mean(), rows.slope
            said = ("yes" if air else "no") if any(cut) else "as trained"
            lines.append(f"| {box} | {said} | {ssim:.3f} | {psnr:.1f} | {slope.mean():.2f} |")
            print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n")


def judge(volume: torch.Tensor, cut: tuple[int, ...], air: bool) -> dict[str, str | float]:
    """Return how one volume comes back from a box."""
    x, y, z = (slice(n, size - n) for n, size in zip(cut, volume.shape[2:], strict=True))
    volume = volume[..., x, y, z]
    made = reconstruct(volume, air=air)
    brain = volume > 0
    figures = reconstruction_metrics(volume, made, brain).iloc[0]
    slope = np.polyfit(volume[brain].numpy(), made.clamp(0, 1)[brain].numpy(), 1)[0]
    box = "×".join(str(n) for n in volume.shape[2:])
    return {"box": box, "ssim": figures.ssim_brain, "psnr": figures.psnr_brain, "slope": slope}


@torch.inference_mode()
def reconstruct(volume: torch.Tensor, *, air: bool) -> torch.Tensor:
    """Return the volume decoded from its posterior mean."""
    net = load_autoencoder(bundled_autoencoder(), device=torch.device("cpu")).net
    if not air and isinstance(net, Autoencoder):
        net.box = None
    return net.decode(net.encode(volume)[0])


if __name__ == "__main__":
    main()
