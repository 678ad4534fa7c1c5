"""The deformation from a brain to another that differs much, as the template does: SyN.

Between volumes of one person `within_person` is faster and nearer the truth.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.imaging.ants_setup import ants_image, captured_ants_output, load_ants
from pipeline.imaging.brain import BRAIN_LEVEL
from pipeline.imaging.deformation.growth import Field, Volume
from pipeline.imaging.geometry import bounding_box, crop_affine
from pipeline.imaging.header import Affine, zooms_of
from schemas.errors import ScanError

MARGIN_MM = 12.0
"""Air around both brains that takes part."""
ITERATIONS = (20, 10, 5)
"""Of SyN, coarse to fine."""
SMOOTHNESS = 3.0
"""Variance (voxels²) of the Gaussian that smooths each update of the deformation."""

Metric = Literal["meansquares", "mattes"]
STEPS: dict[Metric, float] = {"meansquares": 0.1, "mattes": 0.2}
"""Longest move (voxels) of an update. ANTs' own is 0.2; half of it places small changes of one
person better, while the way to the template is long."""


def syn_deformation(
    before: Volume, after: Volume, affine: Affine, *, metric: Metric = "mattes"
) -> Field:
    """Return the displacement (mm) from each point of `before` to the same tissue in `after`.

    SyN of antspyx (Avants et al. 2008). `mattes` suits volumes (X, Y, Z) of a person and the
    template; mean squares those of one person, in the same intensities.

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
