"""Cheap numbers per scan, and the verdict that documented thresholds give."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.imaging.geometry import bounding_box
from pipeline.imaging.header import Affine, zooms_of
from pipeline.imaging.register import correlation
from pipeline.imaging.template import grid_affine, load_template
from schemas.params import GridParams, QcParams

Status = Literal["pass", "warn", "fail"]
Mask = npt.NDArray[np.bool_]
NUMBERS = ("brain_ml", "ncc", "dice", "scaling", "coverage", "turned", "snr", "foreground")
"""The numbers of every scan, in the order of the QC table."""
ADDED_LATER = ("turned",)
"""Numbers that tables and records of earlier versions do not have."""


@dataclass(frozen=True)
class Verdict:
    """Pass, warn or fail, and why."""

    status: Status
    reasons: tuple[str, ...]


def measure(
    *,
    native: npt.NDArray[np.float32],
    native_mask: Mask,
    native_affine: Affine,
    native_to_mni: Affine,
    volume: npt.NDArray[np.float32],
    mask: Mask,
    grid: GridParams,
    rigid: bool,
) -> dict[str, float]:
    """Return the QC numbers of one scan.

    Parameters
    ----------
    native, native_mask, native_affine
        The scan without padding (X, Y, Z) and its brain mask, as they entered the registration.
    volume, mask
        The same brain on the target grid.
    rigid
        Whether the brain kept its size. Its overlap is then given as a share of the best that
        two volumes of these sizes can reach.

    Returns
    -------
    dict
        brain_ml (ml, native); ncc, correlation with the template inside its mask; dice of brain
        and template masks; scaling, the determinant of the affine; coverage, the share of the
        template brain inside the field of view; turned, how far the head lies from the pose of the
        template (degrees); snr, brain median over noise; foreground, the share of the grid that is
        brain.
    """
    template, template_mask = load_template(grid)
    voxel_ml = float(np.prod(zooms_of(native_affine))) / 1000
    sizes = float(mask.sum()), float(template_mask.sum())
    most = 2 * min(sizes) if rigid else sum(sizes)
    return {
        "brain_ml": float(native_mask.sum()) * voxel_ml,
        "ncc": correlation(volume, template, template_mask),
        "dice": 2 * float((mask & template_mask).sum()) / max(1.0, most),
        "scaling": float(np.linalg.det(native_to_mni[:3, :3])),
        "coverage": _coverage(native.shape, native_affine, native_to_mni, grid),
        "turned": _turned(native_to_mni),
        "snr": _snr(native, native_mask),
        "foreground": float(mask.mean()),
    }


def judge(
    numbers: dict[str, float], notes: tuple[str, ...], params: QcParams, *, rigid: bool
) -> Verdict:
    """Return the verdict: any number beyond its `fail` bound fails, beyond `warn` warns."""
    failures: list[str] = []
    warnings = list(notes)
    low, high = params.brain_ml_fail
    warn_low, warn_high = params.brain_ml_warn
    brain_ml = numbers["brain_ml"]
    if not low <= brain_ml <= high:
        failures.append(f"brain of {brain_ml:.0f} ml, expected {low:.0f} to {high:.0f}")
    elif not warn_low <= brain_ml <= warn_high:
        warnings.append(f"brain of {brain_ml:.0f} ml, usual is {warn_low:.0f} to {warn_high:.0f}")
    for name, fail, warn, text in (
        ("ncc", params.ncc_fail, params.ncc_warn, "correlation with the template"),
        ("dice", params.dice_fail, params.dice_warn, "overlap with the template brain"),
        ("coverage", params.coverage_fail, params.coverage_warn, "brain in the field of view"),
    ):
        if numbers[name] < fail:
            failures.append(f"{text} {numbers[name]:.2f}, expected at least {fail:.2f}")
        elif numbers[name] < warn:
            warnings.append(f"{text} {numbers[name]:.2f}, usual is {warn:.2f} or more")
    low, high = params.scaling_warn
    if not rigid and not low <= numbers["scaling"] <= high:
        warnings.append(f"scaled by {numbers['scaling']:.2f}, usual is {low:.2f} to {high:.2f}")
    turned = numbers.get("turned", 0.0)
    if turned > params.turned_warn:
        warnings.append(
            f"head turned by {turned:.0f} degrees, usual is up to {params.turned_warn:.0f}: "
            "a wrong header? then left and right may be wrong too"
        )
    status: Status = "fail" if failures else "warn" if warnings else "pass"
    return Verdict(status, (*failures, *warnings))


def _coverage(
    shape: tuple[int, ...], affine: Affine, native_to_mni: Affine, grid: GridParams
) -> float:
    """Return the share of the template brain's voxels that the field of view reaches."""
    _, template_mask = load_template(grid)
    points = np.argwhere(template_mask) @ grid_affine(grid)[:3, :3].T + grid_affine(grid)[:3, 3]
    to_voxel = np.linalg.inv(native_to_mni @ affine)
    voxels = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    inside = ((voxels >= -0.5) & (voxels <= np.asarray(shape) - 0.5)).all(axis=1)
    return float(inside.mean())


def _turned(native_to_mni: Affine) -> float:
    """Return the angle of the rotation in an affine (degrees)."""
    left, _, right = np.linalg.svd(native_to_mni[:3, :3])
    cosine = (float(np.trace(left @ right)) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def _snr(data: npt.NDArray[np.float32], mask: Mask) -> float:
    """Return the brain's median over the noise of its finest diagonal detail.

    Noise: the median absolute value of the diagonal Haar coefficient of 2x2x2 voxel blocks, over
    0.6745 (Donoho 1995; Coupe et al. 2010 for MRI). Smoothed or upsampled images score high.
    """
    box = bounding_box(mask)
    block, inside = data[box].astype(np.float32), mask[box]
    detail: npt.NDArray[Any] = block
    for axis in range(3):
        detail = np.diff(detail, axis=axis) / np.float32(np.sqrt(2))
    core = inside[:-1, :-1, :-1] & inside[1:, 1:, 1:]
    noise = float(np.median(np.abs(detail[core]))) / 0.6745 if core.any() else 0.0
    signal = float(np.median(block[inside]))
    return min(signal / noise, 1e4) if noise > 0 else 1e4
