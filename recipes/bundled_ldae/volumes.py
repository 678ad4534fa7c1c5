"""Write volumes.zarr and manifest.csv that the bundled LDAE learns from.

Phantoms drawn on the grid, and freely licensed real scans, each with its mirror image and with
copies of both, warped smoothly and of other contrast: heads that nobody has, near those of people.
Drawn phantoms are kept in a folder, so that a run that was stopped goes on.

Run: python recipes/bundled_ldae/volumes.py STUDY OUT [PHANTOMS] [COPIES]
STUDY is the preprocessed study on real data (data/volumes.zarr, data/cohort/manifest.csv).
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import make_subject, make_visits
from pipeline.runtime.digests import digest_of, seed_from
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.grid import Grid
from schemas.params import PhantomParams
from schemas.stores import StoreAttributes

FREE = ("CC0", "PDDL", "PDDL 1.0")
"""Licences without conditions on derived weights."""
CARD = Path(__file__).parents[1] / "bundled_ae" / "card.md"
"""Its test people are never trained on."""
PHANTOM_SEED = 1702
VAL_PHANTOMS, VAL_PEOPLE = 24, 6
UNKNOWN = ("session_id", "age_years", "sex", "diagnosis", "months_from_first")
"""Columns of a manifest that nothing here needs."""
WARPS = ((2.0, 24.0), (0.7, 9.0))
"""Standard deviation along each axis and smoothness (mm) of the warps of copies."""
ZOOMS = 3.0
"""Voxel size (mm) of the grid."""
GAMMA = 0.1
"""Standard deviation of the logarithm of the gamma of copies."""


def main(study: Path, out: Path, phantoms: int = 1500, copies: int = 6) -> None:
    """Draw, copy and write."""
    volumes = open_volumes(study / "data" / "volumes.zarr")
    grid = volumes.attributes.grid
    people = _free_people(pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype=str))
    people = people[people["scan_id"].isin(volumes.row_of)]
    table = pd.concat([_phantom_table(phantoms), _real_table(people, copies)], ignore_index=True)
    table["path"] = "data/volumes.zarr"
    table["source_digest"] = [digest_of(["bundled ldae", scan_id]) for scan_id in table["scan_id"]]
    table = table.reindex(columns=[*table.columns, *UNKNOWN])
    drawn = out / "phantoms"
    drawn.mkdir(parents=True, exist_ok=True)
    _draw(drawn, grid, phantoms)
    table.to_csv(out / "manifest.csv", index=False)
    attributes = StoreAttributes(
        kind="volumes",
        made_by="recipes/bundled_ldae",
        params=volumes.attributes.params,
        digests=volumes.attributes.digests,
        grid=grid,
        scan_ids=list(table["scan_id"]),
        fingerprints=list(table["source_digest"]),
    )
    rows = _rows(table, drawn, volumes)
    write_volumes(out / "volumes.zarr", attributes, progress(rows, total=len(table), label="rows"))


def _free_people(manifest: pd.DataFrame) -> pd.DataFrame:
    held_out = CARD.read_text().split("test subjects of docs/real-data-run.md:")[1].split("\n")[0]
    test = {f"sub-{name.strip(' .').split('_')[0]}" for name in held_out.split(",")}
    return manifest[manifest["licence"].isin(FREE) & ~manifest["subject_id"].isin(test)]


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


@cache
def _phantoms(grid: Grid) -> RegisteredPhantoms:
    torch.set_num_threads(1)
    return RegisteredPhantoms(grid)


def _draw_one(folder: Path, document: dict[str, object], number: int) -> None:
    path = folder / f"{number:04d}.npz"
    if path.is_file():
        return
    subject = make_subject(number, PhantomParams(seed=PHANTOM_SEED, multi_visit_share=0.0))
    volume = _phantoms(_grid(document["text"])).draw(make_visits(subject)[0])
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, volume=volume)
    partial.replace(path)


@cache
def _grid(text: str) -> Grid:
    return Grid.model_validate_json(text)


def _draw(folder: Path, grid: Grid, count: int) -> None:
    document = {"text": grid.model_dump_json()}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw_one, folder, document, n) for n in range(1, count + 1)]
        for job in progress(jobs, total=count, label="phantoms"):
            job.result()


def _rows(table: pd.DataFrame, drawn: Path, volumes: VolumeStore) -> Iterator[VolumeRow]:
    for number, row in enumerate(table.itertuples(index=False), start=1):
        if row.kind == "phantom":
            yield _row(np.load(drawn / f"{number:04d}.npz")["volume"])
        else:
            yield _row(
                _copy(volumes.read_row(volumes.row_of[row.scan]).volume, row.person, row.subject_id)
            )


def _copy(volume: np.ndarray, person: str, own: str) -> np.ndarray:
    """Return the scan itself, its mirror image, or a warped copy of either, by its own name."""
    suffix = own.removeprefix(person)
    if suffix.startswith("m"):
        volume = np.ascontiguousarray(volume[::-1])
    if "c" not in suffix:
        return volume
    rng = np.random.default_rng(seed_from("copy", own))
    points = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij")).astype(np.float32)
    for size, smoothness in WARPS:
        noise = rng.standard_normal(points.shape, dtype=np.float32)
        warp = np.stack([ndimage.gaussian_filter(n, smoothness / ZOOMS) for n in noise])
        points += warp * (size / ZOOMS / warp.std())
    inside = ndimage.map_coordinates((volume > 0).astype(np.float32), points, order=1) >= 0.5
    levels = ndimage.map_coordinates(volume.astype(np.float32), points, order=3) / 255
    levels = np.clip(levels, 0, 1) ** np.exp(GAMMA * rng.standard_normal())
    return np.where(inside, np.clip(np.rint(255 * levels), 1, 255), 0).astype(np.uint8)


def _row(volume: np.ndarray) -> VolumeRow:
    nothing = np.eye(4)
    shape = np.array(volume.shape, dtype=np.int32)
    return VolumeRow(
        volume=volume,
        native_to_mni=nothing,
        native_affine=nothing,
        native_shape=shape,
        intensity_range=np.array([0.0, 1.0]),
    )


if __name__ == "__main__":
    study, out, *counts = sys.argv[1:]
    main(Path(study), Path(out), *map(int, counts))
