"""Phase 2 from Python: open a study's stores, look at y_sem, reconstruct, vary, write NIfTI.

python examples/latents_in_python.py my-study --out made
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.vary import vary
from pipeline.models.inference import LdaeInference, load_models
from pipeline.runtime.devices import resolve_device
from pipeline.stores.latents import LatentStore, open_latents
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.evaluation import EvaluateParams


def y_sem_table(study: Path, models: LdaeInference, latents: LatentStore) -> pd.DataFrame:
    """Return the manifest with y_sem beside it, one row a scan."""
    manifest = pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype={"scan_id": str})
    posterior = latents.load(latents.attributes.scan_ids)
    z_0 = models.standardise(posterior.mean)
    y_sem = pd.DataFrame(models.embed(z_0).cpu().numpy(), index=posterior.scan_ids)
    return manifest.set_index("scan_id").join(y_sem.add_prefix("y_sem_"), how="inner")


def mean_error(volume: torch.Tensor, volumes: VolumeStore, scan_id: str) -> float:
    """Return the mean absolute error inside the brain, intensities 0 to 1."""
    row = volumes.row_of[scan_id]
    true = volumes.read_unit_interval(slice(row, row + 1))[0, 0]
    return float(np.abs(volume.numpy() - true)[true > 0].mean())


def main() -> None:
    """Run on a finished study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, default=Path("made"))
    parser.add_argument("--steps", type=int, default=20, help="sampler steps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    models = load_models(
        options.study / "models" / "ae",
        options.study / "models" / "ldae",
        EvaluateParams(num_inference_steps=options.steps),
        device=resolve_device("auto"),
    )
    latents = open_latents(options.study / "data" / "latents.zarr")
    volumes = open_volumes(options.study / "data" / "volumes.zarr")

    table = y_sem_table(options.study, models, latents)
    table.to_csv(options.out / "y_sem.csv")
    print(f"y_sem of {len(table)} scans: {options.out / 'y_sem.csv'}")

    scan_id = table.index[0]
    z_0 = models.standardise(latents.load([scan_id]).mean)
    same = reconstruct(models, z_0)
    print(f"{scan_id}: mean error {mean_error(same.volumes[0], volumes, scan_id):.3f}")
    print(f"inverted x_T, should be 0, 1, 3: {same.record['inversion']}")

    affine = np.array(volumes.attributes.grid.affine)
    for outcome in (same, vary(models, z_0, name=str(scan_id), count=2, seed=0)):
        for volume, label in zip(outcome.volumes, outcome.labels, strict=True):
            path = options.out / f"{scan_id}_{label}.nii.gz"
            nib.save(nib.Nifti1Image(volume.numpy(), affine), path)
            print(path)


if __name__ == "__main__":
    main()
