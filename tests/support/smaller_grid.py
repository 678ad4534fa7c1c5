"""The scans of the shared volume store without the air around them."""

import dataclasses
from pathlib import Path

import numpy as np

from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder, on_grid
from pipeline.stores.latents import LatentStore, open_latents
from pipeline.stores.volumes import VolumeStore, open_volumes, write_volumes
from schemas.grid import Grid
from schemas.params import EncodeParams
from tests.support.tiny_models import CPU
from tests.support.volumes import SHAPE, volume_attributes, volume_row

MARGINS = (4, 4, 4)
"""Voxels taken away at each end of an axis: one latent."""


def smaller(margins: tuple[int, int, int] = MARGINS, zooms: float = 3.0) -> Grid:
    """Return a grid with the centre of the shared volumes, and so much less at each end."""
    affine = np.diag([zooms, zooms, zooms, 1.0])
    shape = [n - 2 * margin for n, margin in zip(SHAPE, margins, strict=True)]
    affine[:3, 3] = 3.0 * (np.array(SHAPE) - 1) / 2 - zooms * (np.array(shape) - 1) / 2
    return Grid.model_validate({"shape": shape, "affine": affine.tolist()})


def make_smaller_volumes(path: Path, scans: list[str]) -> VolumeStore:
    """Write the same blobs of noise, cut to the smaller grid."""
    attributes = volume_attributes(scans).model_copy(update={"grid": smaller()})

    def rows():
        for scan in scans:
            row = volume_row(int(scan[4:]))
            inside = tuple(slice(m, n - m) for m, n in zip(MARGINS, SHAPE, strict=True))
            yield dataclasses.replace(row, volume=row.volume[inside].copy())

    write_volumes(path, attributes, rows())
    return open_volumes(path)


def make_smaller_latents(path: Path, volumes: VolumeStore, autoencoder: Path) -> LatentStore:
    """Encode them by the autoencoder that was trained on the larger grid."""
    frozen = on_grid(load_autoencoder(autoencoder, device=CPU), volumes.attributes.grid)
    params = EncodeParams(chunk_scans=8, precision="fp32")
    encode_volumes(volumes, frozen, path, params, device=CPU)
    return open_latents(path)
