"""Voxels as stored → finite intensities with the background at zero."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ScanError

MAX_NONFINITE = 0.05
"""Largest share of NaN or infinite voxels that is set to the background and noted."""
NAN_AROUND = 0.9
"""Share of NaN on the faces of a volume from which on NaN stands for the background."""
MIN_LEVELS = 16
"""Fewest distinct intensities: below, the image is a mask or a label map."""
MIN_FOREGROUND = 0.01
"""Smallest share of voxels that differ from the background."""
MIN_MASKED = 0.1
"""Share of voxels at exactly the background from which on the surroundings count as masked."""
SPIKE_FACTOR = 3.0
"""Intensities beyond this many times the 99.9th percentile are clipped to it."""
SPIKE_NOTED = 10.0
"""Intensities beyond this many times the 99.9th percentile are worth a warning."""


def clean_voxels(
    raw: npt.NDArray[Any], slope: float, inter: float
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Scale, mend the few non-finite voxels, clip spikes, put the lowest intensity at zero.

    Returns
    -------
    data, notes
        Finite voxels, 0 where the background is, and what was mended.

    Raises
    ------
    ScanError
        If these are no intensities of a head.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, inter) == (1.0, 0.0):
            data = raw.astype(np.float32)
        else:
            data = (raw * slope + inter).astype(np.float32)
    notes: list[str] = []
    finite = np.isfinite(data)
    num_bad = data.size - int(finite.sum())
    around = _is_nan_around(data)
    if num_bad > MAX_NONFINITE * data.size and not around:
        raise ScanError(
            f"{num_bad / data.size:.0%} of the voxels are NaN or infinite, at most"
            f" {MAX_NONFINITE:.0%} are set to the background; export the scan again"
        )
    background = min(0.0, float(data[finite].min())) if around else _background(data)
    if num_bad:
        data[~finite] = background
        if not around:
            notes.append(f"{num_bad} NaN or infinite voxels set to the background")
    foreground = data[data != background]
    if foreground.size == 0:
        raise ScanError(f"every voxel is {background:g}; expected a head")
    if foreground.size < MIN_FOREGROUND * data.size:
        raise ScanError(
            f"only {foreground.size} voxels differ from the background; expected a head"
        )
    sample = foreground[:: max(1, foreground.size // 1_000_000)]
    if np.unique(sample).size < MIN_LEVELS:
        raise ScanError("fewer than 16 distinct intensities: a mask or label map, expected a T1w")
    low, high = (float(v) for v in np.percentile(sample, (0.1, 99.9)))
    if high <= low:
        raise ScanError("intensities without contrast; expected a T1w head")
    masked = 1 - foreground.size / data.size >= MIN_MASKED and background < np.median(sample)
    # Where the surroundings were set to one value, lower ones are undershoot of interpolation.
    low = background if masked else min(low, background)
    ceiling = low + SPIKE_FACTOR * (high - low)
    if float(data.max()) > low + SPIKE_NOTED * (high - low):
        num_spikes = int((data > ceiling).sum())
        notes.append(f"{num_spikes} voxels brighter than {ceiling:.3g} clipped (spikes)")
    np.clip(data, low, ceiling, out=data)
    data -= np.float32(low)
    return data, notes


def _is_nan_around(data: npt.NDArray[np.float32]) -> bool:
    """Tell whether NaN stands for the background, as some programs write stripped brains."""
    return bool(np.isnan(_faces(data)).mean() > NAN_AROUND and np.isfinite(data).any())


def _faces(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # Views by moveaxis: np.take would copy the whole volume once a face.
    faces = [np.moveaxis(data, axis, 0)[index] for axis in range(3) for index in (0, -1)]
    return np.concatenate([face.ravel() for face in faces])


def _background(data: npt.NDArray[np.float32]) -> float:
    """Return the commonest finite intensity on the faces of the volume."""
    border = _faces(data)
    border = border[np.isfinite(border)]
    if border.size == 0:
        return 0.0
    values, counts = np.unique(border, return_counts=True)
    return float(values[np.argmax(counts)])
