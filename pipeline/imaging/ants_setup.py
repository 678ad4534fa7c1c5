"""ANTs as a deterministic, single-threaded library, and its images from arrays."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import polar

from pipeline.imaging.header import SHEAR_TOLERANCE, Affine, shear_of, zooms_of
from schemas.errors import ScanError

log = logging.getLogger(__name__)

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


@contextlib.contextmanager
def captured_ants_output(step: str) -> Iterator[None]:
    """Send what ANTs prints from C++ to the debug log; its last line explains a failure.

    Of trial transforms that it throws away itself it prints lines such as "bad det": they go to
    the debug log.

    Raises
    ------
    ScanError
        If ANTs fails over the images; `step` says at what.
    """
    with tempfile.TemporaryFile() as captured:
        failure: Exception | None = None
        with _descriptors_to(captured.fileno()):
            try:
                yield
            except RuntimeError as error:
                failure = error
        captured.seek(0)
        text = captured.read(1 << 16).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            log.debug("ANTs, %s: %s", step, " | ".join(dict.fromkeys(lines)))
        if failure is not None:
            words = [*str(failure).splitlines()[:1], *lines[-1:]]
            detail = "; ".join(dict.fromkeys(word[:160] for word in words if word.strip()))
            raise ScanError(f"{step} failed in ANTs: {detail}") from failure


@contextlib.contextmanager
def _descriptors_to(target: int) -> Iterator[None]:
    """Let both output descriptors of the process lead elsewhere; C++ writes past sys.stdout."""
    saved: dict[int, int] = {}
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    try:
        for descriptor in (1, 2):
            # A daemon may have closed them.
            with contextlib.suppress(OSError):
                saved[descriptor] = os.dup(descriptor)
                os.dup2(target, descriptor)
        yield
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def ants_image(data: npt.NDArray[Any], affine: Affine) -> Any:
    """Return an ANTs image (LPS world) of a volume with a RAS affine.

    Raises
    ------
    ValueError
        If the axes are not at right angles: ITK would place the voxels elsewhere.
    """
    if shear_of(affine) > SHEAR_TOLERANCE:
        raise ValueError("sheared affine: resample to axes at right angles first")
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
    return np.asarray(polar(matrix)[0])
