"""Phantoms drawn on the grid of template space, kept in a folder so that a stopped run goes on."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from pipeline.phantom.registered import BLUR_ZOOMS, RegisteredPhantoms
from pipeline.phantom.subjects import Subject, make_visits
from pipeline.runtime.progress import progress
from schemas.grid import Grid

WORKERS = 2


def draw_phantoms(
    folder: Path,
    grid: Grid,
    subject: Callable[[int], Subject],
    count: int,
    *,
    blurs: tuple[float, ...] = (BLUR_ZOOMS,),
) -> None:
    """Write NUMBER.npz with the volume of each of `count` subjects' first visits, from 1.

    `blurs` (mm, see RegisteredPhantoms) are taken in turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = grid.model_dump_json()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        numbers = range(1, count + 1)
        jobs = [
            pool.submit(_draw_one, folder, text, subject(n), n, blurs[n % len(blurs)])
            for n in numbers
        ]
        for job in progress(jobs, total=count, label="phantoms"):
            job.result()


def read_phantom(folder: Path, number: int) -> np.ndarray:
    """Return the volume of a drawn phantom (X, Y, Z), uint8."""
    volume: np.ndarray = np.load(_path(folder, number))["volume"]
    return volume


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.npz"


def _draw_one(folder: Path, grid: str, subject: Subject, number: int, blur: float) -> None:
    path = _path(folder, number)
    if path.is_file():
        return
    volume = _phantoms(grid, blur).draw(make_visits(subject)[0])
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, volume=volume)
    partial.replace(path)


@cache
def _phantoms(grid: str, blur: float) -> RegisteredPhantoms:
    torch.set_num_threads(1)
    return RegisteredPhantoms(Grid.model_validate_json(grid), blur_zooms=blur)
