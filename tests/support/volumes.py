"""Small volume stores of smooth noise."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from pipeline.stores.volumes import BIAS_GRID, VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.manifest import MANIFEST_COLUMNS
from schemas.stores import StoreAttributes

SHAPE = (16, 24, 20)
SCAN, OTHER = "sub-016", "sub-017"
"""Two scans of the test split."""


def smooth_volume(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A blob of smooth noise in a zero background, uint8."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    field = 1 + 254 * (field - field.min()) / np.ptp(field)
    inside = np.zeros(shape, bool)
    inside[2:-2, 3:-3, 2:-2] = True
    return np.where(inside, field, 0).astype(np.uint8)


def volume_attributes(
    scan_ids: list[str], fingerprints: list[str] | None = None
) -> StoreAttributes:
    return StoreAttributes(
        kind="volumes",
        made_by="test",
        params={},
        digests={"preprocessing": "test"},
        grid={
            "shape": list(SHAPE),
            "affine": np.diag([3.0, 3, 3, 1]).tolist(),
            "orientation": "RAS",
        },
        scan_ids=scan_ids,
        fingerprints=fingerprints or [f"fingerprint-{s}" for s in scan_ids],
    )


def volume_row(seed: int) -> VolumeRow:
    return VolumeRow(
        volume=smooth_volume(seed),
        native_to_mni=np.eye(4) + seed,
        native_affine=np.eye(4),
        native_shape=np.array([30, 40, 50], np.int32),
        intensity_range=np.array([0.0, 100.0]),
        log_bias=np.full(BIAS_GRID.shape, 0.01 * seed, np.float16),
    )


def make_volumes(path: Path, scan_ids: list[str]) -> VolumeStore:
    rows = (volume_row(int(s[4:])) for s in scan_ids)
    write_volumes(path, volume_attributes(scan_ids), rows)
    return open_volumes(path)


def subjects(count: int) -> list[str]:
    return [f"sub-{i:03d}" for i in range(count)]


def write_manifest_of(folder, split, months=lambda i: 6.0 * i):
    rows = [
        dict.fromkeys(MANIFEST_COLUMNS, "x")
        | {"scan_id": scan, "subject_id": scan, "split": name}
        | {"age_years": 70.0, "months_from_first": months(i)}
        for name, scans in split.items()
        for i, scan in enumerate(scans)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["scan_id"] == OTHER, "subject_id"] = SCAN
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"
