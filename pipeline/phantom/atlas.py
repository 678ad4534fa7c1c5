"""The atlas of phantom heads: template maps, built once and shared between workers."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from pipeline.imaging.atlas.tissue_maps import template_maps
from pipeline.phantom.anatomy import CAUSES, load_anatomy
from pipeline.phantom.grid import AnyMaps
from pipeline.phantom.head import head_maps


@dataclass(frozen=True)
class Atlas:
    """Maps in template space, from which every phantom head is made."""

    tissues: AnyMaps
    """`anatomy.TISSUES` on BRAIN_1MM, blurred to the scanner's voxel size."""
    brain_mask: AnyMaps
    """Brain fraction on BRAIN_1MM."""
    head: AnyMaps
    """Soft tissue and fat around the brain, on HEAD."""
    volumes: AnyMaps
    """`anatomy.VOLUMES` on BRAIN."""
    velocities: dict[str, AnyMaps]
    """Velocity of each of `anatomy.CAUSES` on BRAIN (mm a unit amplitude)."""


@lru_cache(maxsize=1)
def build_atlas(*, zooms: float) -> Atlas:
    """Return the atlas for images of voxel size `zooms` (mm).

    Takes some seconds; the last atlas is cached.
    """
    maps = template_maps()
    head = head_maps(maps["mask"])
    anatomy = load_anatomy(maps)
    # A voxel averages over its extent: a box of `zooms` mm has variance zooms² / 12.
    sigma = np.sqrt(max(zooms**2 - 1, 0) / 12)
    return Atlas(
        tissues=_blurred(anatomy.tissues, sigma),
        brain_mask=torch.from_numpy(anatomy.mask)[None],
        head=_blurred(head, sigma),
        volumes=anatomy.volumes,
        velocities=anatomy.velocities,
    )


def _blurred(maps: AnyMaps, sigma: float) -> AnyMaps:
    """Blur maps in place, one at a time to spare memory; return them."""
    if sigma:
        for values in maps.numpy():
            values[:] = ndimage.gaussian_filter(values, sigma, truncate=3)
    return maps


def write_atlas(atlas: Atlas, folder: Path) -> None:
    """Write an atlas as arrays that workers map into shared memory."""
    velocities = torch.stack([atlas.velocities[name] for name in CAUSES])
    for name in ("tissues", "brain_mask", "head", "volumes"):
        np.save(folder / f"{name}.npy", getattr(atlas, name).numpy())
    np.save(folder / "velocities.npy", velocities.numpy())


def open_atlas(folder: Path) -> Atlas:
    """Return an atlas that `write_atlas` left, mapped from its files."""

    def mapped(name: str) -> torch.Tensor:
        return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))

    return Atlas(
        tissues=mapped("tissues"),
        brain_mask=mapped("brain_mask"),
        head=mapped("head"),
        volumes=mapped("volumes"),
        velocities=dict(zip(CAUSES, mapped("velocities"), strict=True)),
    )
