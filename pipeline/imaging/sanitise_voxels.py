"""Voxels as stored → finite intensities with the background at zero."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ScanError

MAX_NONFINITE = 0.05
"""Largest share of NaN or infinite voxels that is set to the background and noted."""
NAN_AROUND = 0.9
"""Share of NaN on the faces of a volume from which on NaN stands for the background."""
MIN_LEVELS = 6
"""Fewest distinct intensities: below, no tissue can be told from another."""
FEW_LEVELS = 64
"""Distinct intensities below which an image is worth a warning."""
MAX_LEVELS = 4096
"""Most distinct intensities of an image that may be a label map."""
FLAT = 0.85
"""Share of voxels equal to their neighbour from which on an image is a label map.

Manual label maps of 140 regions have .88 to .90, their five tissues .92; heads rounded to 6 levels
at most .81, to 16 levels .54, to 40 levels .34.
"""
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
    notes += _level_notes(data, sample, background)
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


def _level_notes(
    data: npt.NDArray[np.float32], sample: npt.NDArray[np.float32], background: float
) -> list[str]:
    """Return a note where a head has few grey levels; refuse masks and label maps.

    Raises
    ------
    ScanError
        If the image is none of intensities, or of too few.
    """
    levels, counts = np.unique(sample, return_counts=True)
    num_levels = levels.size
    if num_levels <= 2 or (
        num_levels <= MAX_LEVELS and _flat_share(data, background, levels[counts.argmax()]) > FLAT
    ):
        raise ScanError(
            f"{num_levels} distinct intensities in flat regions: a mask or label map,"
            " expected a T1w; give the scan that it was made from"
        )
    if num_levels < MIN_LEVELS:
        raise ScanError(
            f"only {num_levels} grey levels, expected {MIN_LEVELS} or more; convert the scan again,"
            " without rounding its intensities"
        )
    if num_levels < FEW_LEVELS:
        return [f"only {num_levels} grey levels: rounded when it was stored?"]
    return []


def _flat_share(data: npt.NDArray[np.float32], background: float, commonest: np.float32) -> float:
    """Return the share of foreground voxels that equal the next along the first axis.

    The commonest foreground value is left out: it may be a second background.
    """
    here, there = data[:-1], data[1:]
    kept = np.isfinite(here) & (here != background) & (here != commonest) & (there != background)
    return float((here == there)[kept].mean()) if kept.any() else 0.0


def _is_nan_around(data: npt.NDArray[np.float32]) -> bool:
    """Return whether NaN stands for the background, as some programs write stripped brains."""
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
