"""The deformation between two brains on one grid, and the change of volume that it tells."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.ants_setup import ants_image, captured_ants_output, load_ants
from pipeline.imaging.brain import BRAIN_LEVEL
from pipeline.imaging.geometry import bounding_box, crop_affine
from pipeline.imaging.header import Affine, zooms_of
from schemas.errors import ScanError

MARGIN_MM = 12.0
"""Air around both brains that takes part."""
ITERATIONS = (20, 10, 5)
"""Of SyN, coarse to fine."""
SMOOTHNESS = 3.0
"""Variance (voxels²) of the Gaussian that smooths each update of the deformation."""

SAME = 1 / 512
"""Volumes that differ by less everywhere (half a grey level) are the same: SyN scales each update
to a step of its own size, so it would make a deformation of rounding."""

Metric = Literal["meansquares", "mattes"]
STEPS: dict[Metric, float] = {"meansquares": 0.1, "mattes": 0.2}
"""Longest move (voxels) of an update. ANTs' own is 0.2; half of it places small changes of one
person better, while the way to the template is long."""
Volume = NDArray[np.float32]
Field = NDArray[np.float32]
"""(X, Y, Z, 3): mm, RAS."""


def deformation_between(
    before: Volume, after: Volume, affine: Affine, *, metric: Metric = "meansquares"
) -> Field:
    """Return the displacement (mm) from each point of `before` to the same tissue in `after`.

    SyN of antspyx (Avants et al. 2008). Mean squares suit volumes (X, Y, Z) of one person, in the
    same intensities; `mattes` those of a person and the template. Volume grows where
    `volume_factor` of it is above 1.

    Raises
    ------
    ScanError
        If there is no brain, or ANTs fails.
    """
    brains = (before > BRAIN_LEVEL) | (after > BRAIN_LEVEL)
    if not ((before > BRAIN_LEVEL).any() and (after > BRAIN_LEVEL).any()):
        raise ScanError("deformation: a volume is empty; expected two brains on one grid")
    box = bounding_box(brains, np.ceil(MARGIN_MM / zooms_of(affine)).astype(int))
    field = np.zeros((*before.shape, 3), np.float32)
    if np.abs(before - after).max() > SAME:
        field[box] = _syn(before[box], after[box], crop_affine(affine, box), metric)
    return field


def _syn(fixed: Volume, moving: Volume, affine: Affine, metric: Metric) -> Field:
    ants = load_ants()
    folder = Path(tempfile.mkdtemp(prefix="deformation-"))
    try:
        with captured_ants_output("deformation"):
            result = ants.registration(
                fixed=ants_image(fixed, affine),
                moving=ants_image(moving, affine),
                type_of_transform="SyNOnly",
                initial_transform="identity",
                outprefix=f"{folder}/between_",
                syn_metric=metric,
                flow_sigma=SMOOTHNESS,
                total_sigma=0,
                grad_step=STEPS[metric],
                reg_iterations=ITERATIONS,
            )
        warp = next(p for p in result["fwdtransforms"] if p.endswith(".nii.gz"))
        field = ants.image_read(warp).numpy().astype(np.float32)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return np.asarray(field * np.array([-1, -1, 1], dtype=np.float32))


def volume_factor(field: Field, affine: Affine) -> Volume:
    """Return by how much each voxel's tissue grows (above 1) or shrinks: det of the Jacobian."""
    zooms = zooms_of(affine)
    directions = affine[:3, :3] / zooms
    along = np.stack(np.gradient(field, *zooms, axis=(0, 1, 2)), axis=-1)
    # Axis i of the last one is the direction of voxel axis i; turned into the world's.
    factor: Volume = np.linalg.det(along @ directions.T + np.eye(3)).astype(np.float32)
    return factor
