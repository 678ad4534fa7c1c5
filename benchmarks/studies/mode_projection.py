"""How much of an unseen person principal modes of latents carry, decoded, without any diffusion.

python -m benchmarks.studies.mode_projection --volumes volumes.zarr --out benchmarks/results

Encodes every volume with the bundled autoencoder. A fifth of the subjects, first scans, is judged;
modes are fitted on the scans of the others, on whole latents and on latents pooled 2 and 4 times.
The mean training latent plus a scan's projection onto the modes is decoded and compared with the
scan, beside the decoded mean latent. `smallest` is the smallest field with these amounts, `linear`
the best linear guess (ridge) of the whole latent from them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.cohort.subjects import subjects_of
from pipeline.metrics.intervals import mean_interval
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import FrozenAutoencoder, for_volumes, load_autoencoder
from pipeline.stores.volumes import VolumeStore, open_volumes

FOLDS = 5
POOLED = (1, 2, 4)
COUNTS = (28, 64, 92)
RIDGE = 0.1
"""Of the linear guess, times the mean variance of the amounts."""


def split_scans(scan_ids: list[str]) -> tuple[list[int], list[int]]:
    """Return the rows of four fifths of the subjects, and the first scan of each other subject."""
    subjects = subjects_of(scan_ids)
    names = sorted(set(subjects))
    judged = set(names[::FOLDS])
    fitted = [row for row, name in enumerate(subjects) if name not in judged]
    first = [row for row, name in enumerate(subjects) if subjects.index(name) == row]
    return fitted, [row for row in first if subjects[row] in judged]


@torch.inference_mode()
def encode(volumes: VolumeStore, autoencoder: FrozenAutoencoder) -> Tensor:
    """Return the posterior means, float32 (scan, channel, x, y, z)."""
    means = []
    for row in range(len(volumes)):
        volume = torch.from_numpy(volumes.read("volume", slice(row, row + 1)))
        means.append(autoencoder.net.encode(volume[:, None].float() / 255)[0].float())
    return torch.cat(means)


def score(
    latents: Tensor, rows: list[int], volumes: VolumeStore, autoencoder: FrozenAutoencoder
) -> pd.DataFrame:
    """Return reconstruction metrics of decoded latents, a row a scan."""
    scores = []
    for row, latent in zip(rows, latents, strict=True):
        reference = torch.from_numpy(volumes.read("volume", row)).float()[None, None] / 255
        with torch.inference_mode():
            decoded = autoencoder.net.decode(latent[None]).float().clamp(0, 1)
        scores.append(reconstruction_metrics(reference, decoded, reference > 0).iloc[0])
    return pd.DataFrame(scores).reset_index(drop=True)


def projections(
    fitted: Tensor, judged: Tensor, pooled: int, count: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield what the modes of pooled deviations carry of other deviations, by name."""
    fitted_low, judged_low = (F.avg_pool3d(x, pooled) for x in (fitted, judged))
    low = fitted_low.flatten(1)
    modes = torch.linalg.svd(low - low.mean(0), full_matrices=False)[2][:count]
    amounts, known = judged_low.flatten(1) @ modes.T, low @ modes.T
    spread = modes.reshape(-1, *fitted_low.shape[1:]).repeat_interleave(pooled, 2)
    spread = spread.repeat_interleave(pooled, 3).repeat_interleave(pooled, 4) / pooled**3
    missing = [n - m for n, m in zip(fitted.shape[2:], spread.shape[2:], strict=True)]
    measures = F.pad(spread, [0, missing[2], 0, missing[1], 0, missing[0]]).flatten(1)
    smallest = torch.linalg.solve(measures @ measures.T, amounts.T).T @ measures
    yield "smallest", smallest.reshape(judged.shape)
    penalty = RIDGE * len(known) * known.square().mean() * torch.eye(len(modes))
    weights = torch.linalg.solve(known.T @ known + penalty, known.T @ fitted.flatten(1))
    yield "linear", (amounts @ weights).reshape(judged.shape)


def table(volumes: VolumeStore) -> pd.DataFrame:
    """Return SSIM and MSE inside the brain, and the paired difference to the mean brain."""
    frozen = load_autoencoder(bundled_autoencoder(), device=torch.device("cpu"))
    autoencoder = for_volumes(frozen, volumes.attributes.grid)
    latents = encode(volumes, autoencoder)
    fit_rows, rows = split_scans(volumes.attributes.scan_ids)
    mean = latents[fit_rows].mean(0)
    unit = (latents[fit_rows] - mean).std((0, 2, 3, 4)).reshape(-1, 1, 1, 1)
    fitted, judged = ((latents[r] - mean) / unit for r in (fit_rows, rows))
    brain = score(mean.expand(len(rows), *mean.shape), rows, volumes, autoencoder)
    ways = {
        "decoded mean brain": brain,
        "autoencoder": score(latents[rows], rows, volumes, autoencoder),
    }
    for pooled in POOLED:
        for count in (n for n in COUNTS if n < len(fit_rows)):
            for way, deviation in projections(fitted, judged, pooled, count):
                name = f"{count} modes, pooled {pooled}×, {way}"
                ways[name] = score(mean + unit * deviation, rows, volumes, autoencoder)
    lines = []
    for name, scores in ways.items():
        difference = np.asarray(scores["ssim_brain"] - brain["ssim_brain"])
        interval = mean_interval(difference, np.arange(len(rows)))
        lines.append(
            {
                "decoded": name,
                "people": len(rows),
                "ssim_brain": scores["ssim_brain"].mean(),
                "mse_brain": scores["mse_brain"].mean(),
                "to_mean_brain": interval.value,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    """Write mode-projection.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    result = table(open_volumes(arguments.volumes))
    result.to_csv(arguments.out / "mode-projection.csv", index=False, float_format="%.4f")
    print(result.to_string(index=False))


if __name__ == "__main__":
    main()
