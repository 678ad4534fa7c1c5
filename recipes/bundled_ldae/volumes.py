"""Write volumes.zarr and manifest.csv that the bundled LDAE learns from.

Phantoms drawn on the grid, and freely licensed real scans, each with its mirror image and with
copies of both, warped smoothly and of other contrast: heads that nobody has, near those of people.
Drawn phantoms are kept in a folder, so that a run that was stopped goes on.

Run: python -m recipes.bundled_ldae.volumes STUDY OUT [PHANTOMS] [COPIES]
STUDY is the preprocessed study on real data (data/volumes.zarr, data/cohort/manifest.csv).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.phantom.subjects import Subject, make_subject
from pipeline.runtime.digests import seed_from
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from recipes.drawn_phantoms import draw_phantoms, read_phantom
from recipes.free_people import free_people, volume_row
from recipes.shipped_volumes import with_digests, write_shipped
from recipes.warped_copies import warped_copy
from schemas.params import PhantomParams

PHANTOM_SEED = 1702
VAL_PHANTOMS, VAL_PEOPLE = 24, 6
ZOOMS = 3.0
"""Voxel size (mm) of the grid."""


def main(study: Path, out: Path, phantoms: int = 1500, copies: int = 6) -> None:
    """Draw, copy and write."""
    volumes = open_volumes(study / "data" / "volumes.zarr")
    grid = volumes.attributes.grid
    people = free_people(pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype=str))
    people = people[people["scan_id"].isin(volumes.row_of)]
    table = pd.concat([_phantom_table(phantoms), _real_table(people, copies)], ignore_index=True)
    table = with_digests(table, "bundled ldae")
    drawn = out / "phantoms"
    draw_phantoms(drawn, grid, _subject, phantoms)
    write_shipped(out, "bundled_ldae", table, volumes, _rows(table, drawn, volumes))


def _subject(number: int) -> Subject:
    return make_subject(number, PhantomParams(seed=PHANTOM_SEED, multi_visit_share=0.0))


def _phantom_table(count: int) -> pd.DataFrame:
    ids = [f"sub-phantom{number:04d}" for number in range(1, count + 1)]
    split = ["val" if number <= VAL_PHANTOMS else "train" for number in range(1, count + 1)]
    return pd.DataFrame({"scan_id": ids, "subject_id": ids, "split": split, "kind": "phantom"})


def _real_table(people: pd.DataFrame, copies: int) -> pd.DataFrame:
    """Every copy counts as a subject of its own, so that people weigh beside so many phantoms."""
    subjects = sorted(people["subject_id"].unique(), key=lambda s: seed_from("bundled ldae", s))
    val = set(subjects[:VAL_PEOPLE])
    rows = []
    for scan, subject in people[["scan_id", "subject_id"]].itertuples(index=False):
        if subject in val:
            rows.append((scan, scan, subject, "val", "real", scan))
            continue
        for mirror in ("", "m"):
            for number in range(copies + 1):
                own = f"{subject}{mirror}{f'c{number:02d}' if number else ''}"
                name = scan.replace(subject, own, 1)
                rows.append((name, own, subject, "train", "real", scan))
    columns = ["scan_id", "subject_id", "person", "split", "kind", "scan"]
    return pd.DataFrame(rows, columns=columns)


def _rows(table: pd.DataFrame, drawn: Path, volumes: VolumeStore) -> Iterator[VolumeRow]:
    for number, row in enumerate(table.itertuples(index=False), start=1):
        if row.kind == "phantom":
            yield volume_row(read_phantom(drawn, number))
        else:
            scan = volumes.read_row(volumes.row_of[row.scan]).volume
            yield volume_row(_copy(scan, row.person, row.subject_id))


def _copy(volume: np.ndarray, person: str, own: str) -> np.ndarray:
    """Return the scan itself, its mirror image, or a warped copy of either, by its own name."""
    suffix = own.removeprefix(person)
    if suffix.startswith("m"):
        volume = np.ascontiguousarray(volume[::-1])
    return warped_copy(volume, own, zooms=ZOOMS) if "c" in suffix else volume


if __name__ == "__main__":
    study, out, *counts = sys.argv[1:]
    main(Path(study), Path(out), *map(int, counts))
