"""The bundled autoencoders on other grids than their own, on the grid and back in native space.

python -m benchmarks.studies.any_grid --study STUDY --out benchmarks/results

Raw heads of a preprocessed STUDY (those stripped by deepbet) are preprocessed onto voxels of 1.5 mm
and 3 mm, a few of them onto 1 and 2 mm too, and go through both autoencoders: SSIM inside the
brain, and the correlation with the raw file inside the brain, back in native space. Beside it the
preprocessed volume brought back the same way: what the grid alone can hold. Writes any-grid.csv (a
row a head, voxel size and autoencoder), any-grid.md and, from the .csv, both anew without --study.
It goes on where it was stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.studies.autoencoder_by_source import trained_scans
from pipeline.applications.inputs import native_space_of, unit_interval
from pipeline.applications.nifti.native_space import brain_of, overlay, read_native, to_native
from pipeline.imaging.atlas.mni152 import grid_affine, mni_grid
from pipeline.imaging.preprocess_scan import PreprocessedScan, preprocess_scan
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder, on_grid
from pipeline.runtime.progress import progress
from schemas.grid import GridParams
from schemas.params import PreprocessParams

SHAPES = {
    3.0: (64, 80, 64),
    2.0: (96, 120, 96),
    1.5: (128, 160, 128),
    1.0: (192, 240, 192),
}
OWN = {3.0: "3 mm", 1.5: "1.5 mm"}
"""Voxel size (mm) that each autoencoder was trained on."""
FEW = 8
"""Heads on the voxel sizes that no autoencoder was trained on."""
ENOUGH = 0.9


@torch.inference_mode()
def judge(head: str, path: Path, zooms: float) -> list[dict[str, object]]:
    """Return a row an autoencoder, of one head on one grid."""
    grid = GridParams(shape=SHAPES[zooms], zooms=zooms)
    scan = preprocess_scan(path, PreprocessParams(grid=grid))
    volume = torch.from_numpy(unit_interval(scan.volume))[None, None]
    kept = _correlation(scan, volume, path, grid)
    rows = []
    for trained, name in OWN.items():
        ae = on_grid(
            load_autoencoder(bundled_autoencoder(trained), device=torch.device("cpu")),
            mni_grid(grid),
        )
        made = ae.net.decode(ae.net.encode(volume)[0]).clamp(0, 1)
        figures = reconstruction_metrics(volume, made, volume > 0).iloc[0]
        rows.append(
            {
                "head": head,
                "zooms": zooms,
                "seen": head in trained_scans(),
                "autoencoder": name,
                "ssim": figures["ssim_brain"],
                "native_volume": kept,
                "native_reconstruction": _correlation(scan, made, path, grid),
            }
        )
    return rows


def _correlation(
    scan: PreprocessedScan, volume: torch.Tensor, path: Path, grid: GridParams
) -> float:
    values = volume[0, 0].numpy()
    brain = brain_of(values, scan.volume > 0)
    native = to_native(values, brain, native_space_of(scan), grid_affine(grid))
    return overlay(native, read_native(path))


def raw_heads(study: Path, names: list[str] | None) -> pd.Series:
    """Return the paths of raw heads by scan id: those named, else all with a skull."""
    qc = pd.read_csv(study / "data" / "qc.csv", dtype={"scan_id": str}).set_index("scan_id")
    if names is not None:
        return qc.loc[names, "path"]
    return qc.loc[qc["strip_method"].str.startswith(("deepbet", "upright")), "path"]


def table(per_head: pd.DataFrame) -> str:
    """Return the Markdown table."""
    lines = [
        "| voxels | heads (never seen) | autoencoder of | SSIM in brain, mean"
        " | native r, median: volume alone | native r, median: reconstruction"
        f" | at {ENOUGH:g} or more |",
        "|---|---|---|---|---|---|---|",
    ]
    for (zooms, name), rows in per_head.groupby(["zooms", "autoencoder"]):
        enough = int((rows["native_reconstruction"] >= ENOUGH).sum())
        unseen = int((~rows["seen"]).sum())
        lines.append(
            f"| {zooms:g} mm | {len(rows)} ({unseen}) | {name} | {rows['ssim'].mean():.3f}"
            f" | {rows['native_volume'].median():.3f}"
            f" | {rows['native_reconstruction'].median():.3f} | {enough} of {len(rows)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Judge, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path)
    parser.add_argument("--heads", type=Path, help="text file of scan ids; default: all raw heads")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    csv = arguments.out / "any-grid.csv"
    if arguments.study is not None:
        names = arguments.heads.read_text().split() if arguments.heads else None
        heads = raw_heads(arguments.study, names)
        few = heads.iloc[np.unique(np.linspace(0, len(heads) - 1, FEW).astype(int))]
        work = [(z, h, p) for z in (1.5, 3.0) for h, p in heads.items()]
        work += [(z, h, p) for z in (2.0, 1.0) for h, p in few.items()]
        found = pd.read_csv(csv) if csv.is_file() else pd.DataFrame(columns=["head", "zooms"])
        done = set(zip(found["head"], found["zooms"].astype(float), strict=True))
        left = [(z, h, p) for z, h, p in work if (h, z) not in done]
        for zooms, head, path in progress(left, total=len(left), label="grids"):
            rows = pd.DataFrame(judge(str(head), Path(path), zooms))
            found = rows if found.empty else pd.concat([found, rows])
            found.to_csv(csv, index=False, float_format="%.4f")
    made = table(pd.read_csv(csv))
    csv.with_suffix(".md").write_text(made)
    print(made)


if __name__ == "__main__":
    main()
