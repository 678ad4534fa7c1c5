"""QC numbers of a scan, and the verdict by documented thresholds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import polar

from pipeline.imaging.atlas.mni152 import grid_affine, load_template, load_tissues
from pipeline.imaging.contrasts import rule_of
from pipeline.imaging.geometry import bounding_box
from pipeline.imaging.header import Affine, zooms_of
from pipeline.imaging.register import correlation, overlap
from schemas.grid import GridParams
from schemas.params import Contrast, QcParams

Status = Literal["pass", "warn", "fail"]
Mask = npt.NDArray[np.bool_]
NUMBERS = (
    "brain_ml",
    "ncc",
    "dice",
    "white_grey",
    "grey_fluid",
    "scaling",
    "coverage",
    "turned",
    "snr",
    "foreground",
)
"""The numbers of every scan, in the order of the QC table."""
CONTRASTS = ("white_grey", "grey_fluid")
ADDED_LATER = ("turned", *CONTRASTS)
"""Numbers that tables and records of earlier versions do not have."""
MIN_TISSUE = 30
"""Fewest voxels of a tissue on the grid from which its brightness is taken."""


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
        and template masks; white_grey and grey_fluid, by how many standard deviations of the brain
        one tissue is brighter than the next (absent where the grid is too coarse); scaling, the
        determinant of the affine; coverage, the share of the template brain inside the field of
        view; turned, how far the head lies from the pose of the template (degrees); snr, brain
        median over noise; foreground, the share of the grid that is brain.
    """
    template, template_mask = load_template(grid)
    voxel_ml = float(np.prod(zooms_of(native_affine))) / 1000
    return {
        "brain_ml": float(native_mask.sum()) * voxel_ml,
        "ncc": correlation(volume, template, template_mask),
        "dice": overlap(mask, template_mask, rigid=rigid),
        **_contrasts(volume, mask, grid),
        "scaling": float(np.linalg.det(native_to_mni[:3, :3])),
        "coverage": _coverage(native.shape, native_affine, native_to_mni, grid),
        "turned": _turned(native_to_mni),
        "snr": _snr(native, native_mask),
        "foreground": float(mask.mean()),
    }


def assess_qc(
    numbers: dict[str, float],
    notes: tuple[str, ...],
    params: QcParams,
    *,
    rigid: bool,
    contrast: Contrast = "T1w",
) -> Verdict:
    """Return the verdict: any number beyond its `fail` bound fails, beyond `warn` warns."""
    rule = rule_of(contrast, params)
    failures: list[str] = []
    warnings = list(notes)
    low, high = params.brain_ml_fail
    warn_low, warn_high = params.brain_ml_warn
    brain_ml = numbers["brain_ml"]
    if not low <= brain_ml <= high:
        failures.append(f"brain of {brain_ml:.0f} ml, expected {low:.0f} to {high:.0f}")
    elif not warn_low <= brain_ml <= warn_high:
        warnings.append(f"brain of {brain_ml:.0f} ml, usual is {warn_low:.0f} to {warn_high:.0f}")
    bounds = [
        ("dice", params.dice_fail, params.dice_warn, "overlap with the template brain"),
        ("coverage", params.coverage_fail, params.coverage_warn, "brain in the field of view"),
    ]
    judged = dict(numbers)
    if rule.ncc_fail is not None:
        negative = " (negative)" if rule.ncc_sign < 0 else ""
        text = f"correlation with the template{negative}"
        bounds.insert(0, ("ncc", rule.ncc_fail, _usual_ncc(numbers, params, contrast), text))
        judged["ncc"] *= rule.ncc_sign
    for name, fail, warn, text in bounds:
        if judged[name] < fail:
            failures.append(f"{text} {judged[name]:.2f}, expected at least {fail:.2f}")
        elif judged[name] < warn:
            warnings.append(f"{text} {judged[name]:.2f}, usual is {warn:.2f} or more")
    for fault, is_failure in _contrast_faults(numbers, params, contrast):
        (failures if is_failure else warnings).append(fault)
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


def is_poor(numbers: dict[str, float], params: QcParams, contrast: Contrast = "T1w") -> bool:
    """Return whether the correlation with the template is too low for this scan."""
    rule = rule_of(contrast, params)
    if rule.ncc_fail is None:
        return False
    return rule.ncc_sign * numbers["ncc"] < _usual_ncc(numbers, params, contrast)


def _usual_ncc(numbers: dict[str, float], params: QcParams, contrast: Contrast) -> float:
    """Return the correlation below which a scan is suspicious.

    Large ventricles lower the correlation of elders alone. Brains in a wrong pose correlate by as
    much, and a phantom that lay upside down overlapped by .946: so the contrast of the tissues
    where the template has them, and the pose, must be right too.
    """
    if contrast != "T1w":
        return rule_of(contrast, params).ncc_warn
    is_sound = (
        numbers["dice"] >= params.dice_atrophy
        and numbers.get("turned", 0.0) <= params.turned_warn
        and numbers.get("white_grey", -1.0) >= params.white_grey_warn
        and numbers.get("grey_fluid", -1.0) >= params.grey_fluid_warn
    )
    return min(params.ncc_warn, params.ncc_warn_atrophy) if is_sound else params.ncc_warn


def is_other_contrast(
    numbers: dict[str, float], params: QcParams, contrast: Contrast = "T1w"
) -> bool:
    """Return whether the tissues are not in the order of the contrast (T1w: fluid, grey, white)."""
    return any(is_failure for _, is_failure in _contrast_faults(numbers, params, contrast))


def _contrast_faults(
    numbers: dict[str, float], params: QcParams, contrast: Contrast
) -> Iterator[tuple[str, bool]]:
    """Yield each sign that an image is of another contrast, and whether it fails the scan."""
    other = "a T2w, FLAIR, T1 map or inversion image?" if contrast == "T1w" else f"no {contrast}?"
    for order in rule_of(contrast, params).orders:
        # Records of earlier versions and coarse grids have none.
        value = numbers.get(order.number)
        if value is None or not order.sign * value < order.warn:
            continue
        value, fail = order.sign * value, order.fail
        limit = f"expected at least {fail:.2f}"
        if value >= fail:
            limit = f"usual is {order.warn:.2f} or more"
        yield f"contrast of {order.words} {value:.2f}, {limit}: {other}", value < fail


def _contrasts(volume: npt.NDArray[np.float32], mask: Mask, grid: GridParams) -> dict[str, float]:
    """Return by how many SD of the brain white matter is brighter than grey, and grey than fluid.

    Medians where the template surely has that tissue. An affine fit leaves fluid in the cortex of
    elders, which would make grey matter dark and a FLAIR look like a T1w: against white matter,
    only grey voxels count that are nearer to it than to fluid.
    """
    tissues = {name: volume[mask & where] for name, where in load_tissues(grid).items()}
    if min(values.size for values in tissues.values()) < MIN_TISSUE:
        return {}
    low, high = np.percentile(volume[mask], (0.5, 99.5))
    spread = float(np.clip(volume[mask], low, high).std())
    if not spread > 0:
        return dict.fromkeys(CONTRASTS, 0.0)
    fluid, grey, white = (float(np.median(tissues[name])) for name in ("fluid", "grey", "white"))
    cortex = tissues["grey"]
    solid = cortex[np.abs(cortex - white) < np.abs(cortex - fluid)]
    solid_grey = float(np.median(solid)) if solid.size >= MIN_TISSUE else grey
    return {"white_grey": (white - solid_grey) / spread, "grey_fluid": (grey - fluid) / spread}


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
    cosine = (float(np.trace(polar(native_to_mni[:3, :3])[0])) - 1) / 2
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
