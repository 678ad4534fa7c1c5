"""ANTs as a deterministic, single-threaded library, and its images from arrays."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.imaging.header import Affine, zooms_of

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SEED = 20251


def load_ants() -> Any:
    """Import ants so that equal inputs give equal bytes.

    Two ITK threads sum in varying order, and the metric's random sampling takes its seed from the
    clock unless the environment names one; both are read when the library starts.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["ANTS_RANDOM_SEED"] = str(SEED)
    import ants
    from ants import config

    # What set_ants_deterministic does, less its seeding of numpy's and Python's global generators.
    config._random_seed = SEED
    return ants


def ants_image(data: npt.NDArray[Any], affine: Affine) -> Any:
    """Return an ANTs image (LPS world) of a volume with a RAS affine."""
    lps = RAS_TO_LPS @ affine
    zooms = zooms_of(lps)
    return load_ants().from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=zooms.tolist(),
        direction=_nearest_rotation(lps[:3, :3] / zooms),
    )


def _nearest_rotation(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ITK refuses directions that rounding left a little off orthonormal."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)
