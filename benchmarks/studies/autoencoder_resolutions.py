"""The bundled autoencoders of both voxel sizes on volumes of 1.5 mm, people never trained on.

python -m benchmarks.studies.autoencoder_resolutions --study STUDY --out benchmarks/results

STUDY is preprocessed at 1.5 mm (`pipeline init --resolution 1.5`, to the stage `preprocess`). Four
ways to 1.5 mm: the autoencoder of 1.5 mm; that of 3 mm on the voxels as they are, as if they were
of 3 mm; that of 3 mm, from averages of eight voxels, brought to 1.5 mm by cubic splines; and the
averages themselves brought there, the most that any autoencoder of averages could give. Writes
autoencoder-resolutions.csv (a row a scan) and .md; without --study, the .md anew from the .csv.
--ae judges another folder than the bundled one.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool3d

from benchmarks.studies.autoencoder_by_source import trained_scans, unseen_scans, voxel_edges
from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml
from pipeline.metrics.intervals import mean_interval, median_interval, paired_difference
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder, on_grid
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.metrics import Estimate

FACTOR = 2
"""Voxels of 1.5 mm a side of one of 3 mm."""
WAYS = {
    "fine": "autoencoder of 1.5 mm",
    "direct": "autoencoder of 3 mm on voxels of 1.5 mm (latents eight times as large)",
    "coarse": "autoencoder of 3 mm, brought to 1.5 mm",
    "averages": "averages of 3 mm, brought to 1.5 mm",
}
ELDER = 65
"""Age (years) from which on a person counts as an elder."""

Volume = Float[Tensor, "1 1 X Y Z"]


@torch.inference_mode()
def reconstructions(
    volume: Volume,
    fine: FrozenAutoencoder,
    coarse: FrozenAutoencoder,
    direct: FrozenAutoencoder,
) -> dict[str, Volume]:
    """Return what each way makes of a volume."""
    averages = avg_pool3d(volume, FACTOR)
    through = coarse.net.decode(coarse.net.encode(averages)[0])
    return {
        "fine": fine.net.decode(fine.net.encode(volume)[0]).clamp(0, 1),
        "direct": direct.net.decode(direct.net.encode(volume)[0]).clamp(0, 1),
        "coarse": _finer(through.clamp(0, 1)),
        "averages": _finer(averages),
    }


def _finer(volume: Tensor) -> Volume:
    """Return a volume on voxels half as large, by cubic splines."""
    made = ndimage.zoom(volume[0, 0].numpy(), FACTOR, order=3, mode="nearest", grid_mode=True)
    return torch.from_numpy(made).clamp(0, 1)[None, None]


def judge(unseen: pd.DataFrame, volumes: VolumeStore, fine: FrozenAutoencoder) -> pd.DataFrame:
    """Return a row a scan: about it, and SSIM, PSNR and ventricles of each way."""
    grid = volumes.attributes.grid
    affine = np.asarray(grid.affine, dtype=np.float64)
    coarse = load_autoencoder(bundled_autoencoder(), device=torch.device("cpu"))
    direct = on_grid(load_autoencoder(bundled_autoencoder(), device=torch.device("cpu")), grid)
    rows = []
    for _, scan in progress(unseen.iterrows(), total=len(unseen), label="resolutions"):
        volume = volumes.load_unit_interval([scan["scan_id"]])
        levels = intensity_levels(volume[0, 0].numpy(), affine)
        own = ventricle_ml(volume[0, 0].numpy(), affine, levels=levels)
        row = {key: scan[key] for key in ("scan_id", "subject_id", "source", "trained_on")}
        row |= {"age_years": scan["age_years"], "ventricle_ml": own}
        for way, made in reconstructions(volume, fine, coarse, direct).items():
            figures = reconstruction_metrics(volume, made, volume > 0).iloc[0]
            kept = ventricle_ml(made[0, 0].numpy(), affine, levels=levels)
            row |= {
                f"ssim_{way}": figures["ssim_brain"],
                f"psnr_{way}": figures["psnr_brain"],
                f"ventricle_error_{way}": abs(kept - own) / own if own > 0 else np.nan,
            }
        rows.append(row)
    edges = pd.Series(voxel_edges(volumes), name="voxel_mm")
    return pd.DataFrame(rows).join(edges, on="scan_id")


def groups(per_scan: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return who is judged together; some people are in several groups."""
    new = ~per_scan["trained_on"]
    elders = per_scan["age_years"] >= ELDER
    native = ~new & (per_scan["voxel_mm"] < 1.5)
    found = {
        "sources never trained on": per_scan[new],
        f"of them {ELDER} years and older": per_scan[new & elders],
        "of them younger": per_scan[new & ~elders],
        "unseen people of sources trained on, own voxels": per_scan[native],
        "unseen people of sources trained on, smoothed copies": per_scan[~new & ~native],
    }
    return {name: rows for name, rows in found.items() if len(rows)}


def table(per_scan: pd.DataFrame) -> str:
    """Return the Markdown table: a row a group and way."""
    lines = [
        "| people never trained on | people | scans | way | SSIM in brain | PSNR (dB)"
        " | SSIM minus that of 3 mm, paired | ventricles, median error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups(per_scan).items():
        whose = rows["subject_id"].to_numpy()
        for way, words in WAYS.items():
            ssim = mean_interval(rows[f"ssim_{way}"].to_numpy(float), whose)
            psnr = mean_interval(rows[f"psnr_{way}"].to_numpy(float), whose)
            gained = "–"
            if way != "coarse":
                pair = (rows[f"ssim_{w}"].to_numpy(float) for w in (way, "coarse"))
                gained = _cell(paired_difference(*pair, whose), 3)
            error = rows[f"ventricle_error_{way}"].dropna()
            wrong = median_interval(error.to_numpy(float), whose[rows.index.isin(error.index)])
            lines.append(
                f"| {name} | {len(set(whose))} | {len(rows)} | {words} | {_cell(ssim, 3)}"
                f" | {_cell(psnr, 1)} | {gained} | {_cell(wrong, 1, 100)} % |"
            )
    return "\n".join(lines) + "\n"


def _cell(found: Estimate, digits: int, factor: float = 1) -> str:
    value = f"{factor * found.value:.{digits}f}"
    if found.interval is None:
        return value
    low, high = (f"{factor * limit:.{digits}f}" for limit in found.interval)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Judge, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--ae", type=Path, help="default: the bundled one for 1.5 mm")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    csv = arguments.out / "autoencoder-resolutions.csv"
    if arguments.study is not None:
        volumes = open_volumes(arguments.study / "data" / "volumes.zarr")
        manifest = read_manifest(arguments.study / "data" / "cohort" / "manifest.csv")
        folder = arguments.ae or bundled_autoencoder(1.5)
        fine = load_autoencoder(folder, device=torch.device("cpu"))
        unseen = unseen_scans(manifest, trained_scans())
        unseen = unseen[unseen["scan_id"].isin(volumes.row_of)]
        judged = judge(unseen, volumes, on_grid(fine, volumes.attributes.grid))
        judged.round(4).to_csv(csv, index=False)
    made = table(pd.read_csv(csv))
    csv.with_suffix(".md").write_text(made)
    print(made)


if __name__ == "__main__":
    main()
