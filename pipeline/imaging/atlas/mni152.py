"""The MNI152 brain (nilearn's ICBM152 2009a, symmetric, skull-stripped) and the target grid."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.imaging.geometry import sample, smooth_for
from pipeline.imaging.header import Affine
from schemas.grid import Grid, GridParams

SURE_TISSUE = {"fluid": 0.7, "grey": 0.9, "white": 0.9}
"""Share of a tissue in a template voxel from which on it stands for that tissue."""
GRID_CENTRE = (0.0, -17.0, 5.0)
"""Middle of the template brain's bounding box (MNI152 world, mm)."""


def grid_affine(grid: GridParams) -> Affine:
    """Return the (4, 4) affine of the target grid: voxel to MNI152 world (mm), RAS.

    The field of view is centred on GRID_CENTRE, so grids of equal extent share their borders
    whatever their voxel size.
    """
    affine = np.diag([grid.zooms, grid.zooms, grid.zooms, 1.0])
    affine[:3, 3] = np.asarray(GRID_CENTRE) - grid.zooms * (np.asarray(grid.shape) - 1) / 2
    return affine


def mni_grid(grid: GridParams) -> Grid:
    """Return the grid that these parameters of preprocessing name."""
    return Grid.model_validate({"shape": grid.shape, "affine": grid_affine(grid).tolist()})


@lru_cache(maxsize=1)
def _full_template() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Affine]:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    inside = np.asarray(mask.dataobj, dtype=np.float32)
    return image.get_fdata(dtype=np.float32), inside, np.asarray(image.affine)


@lru_cache(maxsize=4)
def load_template(grid: GridParams) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the template on the grid (0 to 1) and its brain mask, both (X, Y, Z)."""
    image, mask, affine = _full_template()
    target = grid_affine(grid)
    volume = sample(smooth_for(image, affine, grid.zooms), affine, target, grid.shape)
    inside = sample(smooth_for(mask, affine, grid.zooms), affine, target, grid.shape) >= 0.5
    volume.setflags(write=False)
    inside.setflags(write=False)
    return volume, inside


@lru_cache(maxsize=4)
def load_tissues(grid: GridParams) -> dict[str, npt.NDArray[np.bool_]]:
    """Return where the template surely holds fluid, grey and white matter, each (X, Y, Z)."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    target = grid_affine(grid)

    def on_grid(image: Any) -> npt.NDArray[np.float32]:
        affine = np.asarray(image.affine)
        data = smooth_for(image.get_fdata(dtype=np.float32), affine, grid.zooms)
        return sample(data, affine, target, grid.shape)

    grey = on_grid(load_mni152_gm_template(resolution=1))
    white = on_grid(load_mni152_wm_template(resolution=1))
    shares = {"fluid": 1 - grey - white, "grey": grey, "white": white}
    _, brain = load_template(grid)
    return {name: brain & (shares[name] > sure) for name, sure in SURE_TISSUE.items()}
