"""Write volumes.zarr and manifest.csv that the bundled 1.5 mm autoencoder learns from.

Phantoms drawn on the grid, half as sharp as scans of 1 mm voxels, half as smooth as copies at 2 mm;
the scans of recipes/bundled_ae/scans.csv; and copies of them, warped, of other contrast, some
sharpened, with atrophy planted in them: large ventricles and thin cortex on heads of the young.

Run: python -m recipes.bundled_ae_1_5mm.volumes STUDY OUT [PHANTOMS] [COPIES]
STUDY is the study on real data, preprocessed at 1.5 mm (data/volumes.zarr, data/cohort).
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.phantom.atlas import build_atlas
from pipeline.phantom.planted import PlantedAtrophy
from pipeline.phantom.subjects import Subject, make_subject
from pipeline.runtime.digests import seed_from
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from recipes.drawn_phantoms import draw_phantoms, read_phantom
from recipes.free_people import free_people, volume_row
from recipes.shipped_volumes import with_digests, write_shipped
from recipes.warped_copies import warped_copy
from schemas.grid import Grid
from schemas.params import PhantomParams

SCANS = Path(__file__).parents[1] / "bundled_ae" / "scans.csv"
PHANTOM_SEED = 1701
VAL_PHANTOMS = 4
BLURS = (1.9, 3.8)
"""Voxel sizes (mm) as sharp as scans of 1 mm on this grid, and as smoothed copies at 2 mm."""
SEVERE = 1.6
"""Factor of the atrophy of every third phantom."""
PLANTED = {"ventricle": (0.0, 3.0), "cortex": (0.0, 1.5), "medial_temporal": (0.0, 1.5)}
"""Range of each cause's amplitude in copies, in the phantom's units."""
LEVELS = 12
"""Deformations that copies share."""
SHARPEN = (0.0, 0.8)
"""Range of the weight of sharpening."""


def main(study: Path, out: Path, phantoms: int = 240, copies: int = 3) -> None:
    """Draw, copy and write."""
    volumes = open_volumes(study / "data" / "volumes.zarr")
    grid = volumes.attributes.grid
    people = free_people(pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype=str))
    split = pd.read_csv(SCANS, dtype=str).set_index("scan_id")["split"]
    people = people[people["scan_id"].isin(split.index) & people["scan_id"].isin(volumes.row_of)]
    table = pd.concat(
        [_phantom_table(phantoms), _real_table(people, split, copies)], ignore_index=True
    )
    table = with_digests(table, "bundled ae 1.5 mm")
    drawn = out / "phantoms"
    draw_phantoms(drawn, grid, _subject, phantoms, blurs=BLURS)
    write_shipped(out, "bundled_ae_1_5mm", table, volumes, _rows(table, drawn, volumes))


def _subject(number: int) -> Subject:
    subject = make_subject(number, PhantomParams(seed=PHANTOM_SEED, multi_visit_share=0.0))
    return replace(subject, atrophy=SEVERE * subject.atrophy) if number % 3 == 0 else subject


def _phantom_table(count: int) -> pd.DataFrame:
    ids = [f"sub-phantom{number:04d}" for number in range(1, count + 1)]
    split = ["val" if number <= VAL_PHANTOMS else "train" for number in range(1, count + 1)]
    return pd.DataFrame({"scan_id": ids, "subject_id": ids, "split": split, "kind": "phantom"})


def _real_table(people: pd.DataFrame, split: pd.Series, copies: int) -> pd.DataFrame:
    rows = []
    for scan in people["scan_id"]:
        own = split[scan]
        names = [scan, *(f"{scan}c{n:02d}" for n in range(1, copies + 1) if own == "train")]
        rows += [(name, name.split("_")[0], own, "real", scan) for name in names]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "split", "kind", "scan"])


def _rows(table: pd.DataFrame, drawn: Path, volumes: VolumeStore) -> Iterator[VolumeRow]:
    for number, row in enumerate(table.itertuples(index=False), start=1):
        if row.kind == "phantom":
            yield volume_row(read_phantom(drawn, number))
            continue
        volume = volumes.read_row(volumes.row_of[row.scan]).volume
        copied = row.scan_id != row.scan
        grid = volumes.attributes.grid
        yield volume_row(_atrophied(volume, row.scan_id, grid) if copied else volume)


def _atrophied(volume: np.ndarray, name: str, grid: Grid) -> np.ndarray:
    """Return a warped copy with one of the shared deformations, sharpened by chance."""
    rng = np.random.default_rng(seed_from("atrophied copy", name))
    level, sharpen = int(rng.integers(LEVELS)), float(rng.uniform(*SHARPEN))
    moved = _shift(level, grid.model_dump_json())
    return warped_copy(volume, name, zooms=min(grid.zooms), moved=moved, sharpen=sharpen)


@cache
def _shift(level: int, grid: str) -> np.ndarray:
    """Return a deformation (3, X, Y, Z) in voxels, float16: it is kept."""
    rng = np.random.default_rng(seed_from("planted level", level))
    amounts = {cause: float(rng.uniform(*bounds)) for cause, bounds in PLANTED.items()}
    planted = PlantedAtrophy.of(amounts, build_atlas(zooms=BLURS[0]))
    onto = Grid.model_validate_json(grid)
    shift = planted.shift(np.asarray(onto.affine, dtype=np.float64), onto.shape)
    return np.moveaxis(shift, -1, 0).astype(np.float16)


if __name__ == "__main__":
    study, out, *counts = sys.argv[1:]
    main(Path(study), Path(out), *map(int, counts))
