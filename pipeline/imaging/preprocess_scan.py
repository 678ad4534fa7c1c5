"""From one image file to one volume on the MNI152 grid."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.bias import BiasField, correct_bias
from pipeline.imaging.brain import (
    bet_mask,
    content_mask,
    deepbet_mask,
    hdbet_is_installed,
    hdbet_mask,
    stripped_mask,
)
from pipeline.imaging.geometry import (
    bounding_box,
    crop_affine,
    resample_masked,
    resample_masked_warped,
    to_ras,
)
from pipeline.imaging.header import Affine, check_field_of_view, zooms_of
from pipeline.imaging.intensities import (
    TissueLevels,
    quantise,
    share_of_range,
    standardise,
    tissue_levels,
)
from pipeline.imaging.qc import assess_qc, is_other_contrast, is_poor, measure
from pipeline.imaging.read import read_scan
from pipeline.imaging.register import SURE_NCC, Metric, Registration, find_poses, register
from pipeline.imaging.upright_strip import upright_mask
from schemas.errors import ScanError
from schemas.params import Contrast, PreprocessParams, QcParams

METHOD_VERSION = 6
"""Raised when the chain's results change; part of every scan's fingerprint."""
SECOND_OPINION_DICE = 0.94
"""Overlap with the template below which a brain mask is doubted."""
USUAL_BRAIN_ML = (950.0, 2000.0)
"""Brain volume (ml) beyond which a brain mask is doubted."""
USUAL = QcParams()
"""Thresholds of doubt: not those of the study, on which a volume's content does not depend."""
CROP_MARGIN = 4.0
"""Border kept around the brain (mm)."""
NO_LANDMARKS = "white matter is not brighter than grey, so intensities keep their percentiles"
UPRIGHT = "deepbet, upright"
"""Name of the second opinion on a head that lies askew."""
Mask = npt.NDArray[np.bool_]
Opinion = Callable[[], tuple[Mask, Affine | None]]
"""Finds a brain mask, and the pose that the head was found in if it was looked for."""


@dataclass(frozen=True)
class PreprocessedScan:
    """One scan on the grid, and a record of every step."""

    volume: npt.NDArray[np.uint8]
    """(X, Y, Z): 0 outside the brain, 1 to 255 inside."""
    native_to_mni: Affine
    """(4, 4), native world to MNI152 world (mm); the affine part under `syn`."""
    native_affine: Affine
    """(4, 4), voxel of the file to native world (mm)."""
    native_shape: tuple[int, int, int]
    """Voxels of the file along its own axes."""
    intensity_range: tuple[float, float]
    """Bias-corrected native intensities that became 1 and 255."""
    bias: BiasField | None
    """What the native intensities were divided by; None where they were left as they are."""
    qc: dict[str, float | str]
    """QC numbers, `status` (pass, warn or fail) and `reasons`."""
    notes: tuple[str, ...]
    """What was odd about the file; each is a warning."""
    timings: dict[str, float]
    """CPU seconds a step."""
    tissue_levels: TissueLevels | None = None
    """Grey and white matter, as shares of the range, before they were moved; None: not moved."""


@dataclass
class _Clock:
    """CPU seconds a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


@dataclass(frozen=True)
class _Head:
    """A scan in RAS without its padding."""

    data: npt.NDArray[np.float32]
    affine: Affine
    native_shape: tuple[int, int, int]
    native_affine: Affine
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Result:
    """The outcome of one brain mask: transform, volume and QC numbers."""

    values: npt.NDArray[np.float32]
    inside: Mask
    transform: Registration
    bias: BiasField | None
    numbers: dict[str, float]


def preprocess_scan(
    path: Path, params: PreprocessParams, *, device: str = "cpu"
) -> PreprocessedScan:
    """Read, orient, strip, correct, register, resample once, scale and judge one scan.

    Where the outcome is doubtful, a second opinion on the brain mask is taken and the better one
    kept: deepbet for a scan that came stripped (remains of the neck); otherwise deepbet on the head
    turned upright by quarter turns, then by any rotation, then HD-BET where it is installed.
    Deterministic: equal file and params give equal bytes on one machine and device; the skull is
    stripped on `device`, the rest runs on the processor.

    Raises
    ------
    ScanError
        If the file cannot be used at all. A scan that only looks wrong is returned with
        qc["status"] == "fail".
    """
    clock, contrast = _Clock(), params.contrast or "T1w"
    with clock.step("read"):
        head = _load_head(path, params)
    with clock.step("strip"):
        mask, method = _brain_mask(head, params, device)
    opinions = (
        _second_opinions(head, mask, method, contrast, device)
        if params.brain_mask == "auto"
        else []
    )
    # The head turned upright is found by a search of its own; one such search is enough.
    searched = any(name == UPRIGHT for name, _ in opinions)
    result = _align(head, mask, params, clock)
    if not searched:
        result = _searched(result, head, mask, params, clock)
    for name, find_mask in opinions:
        if not _doubtful(result.numbers, contrast) or _is_other_contrast(result.numbers, contrast):
            break
        other = _aligned_otherwise(head, find_mask, params, clock)
        if other is not None and _rank(other, contrast) > _rank(result, contrast):
            result, method = other, name
    # No other mask was better: the search that was left out for them.
    if method == "deepbet" and searched:
        result = _searched(result, head, mask, params, clock)
    own, notes = None, head.notes
    with clock.step("resample"):
        levels, intensity_range = share_of_range(
            result.values,
            result.inside,
            None if params.intensity == "minmax" else params.intensity_percentiles,
        )
        if params.intensity == "landmarks":
            own = tissue_levels(levels, result.inside, grid_affine(params.grid))
            levels = levels if own is None else standardise(levels, own)
            notes += () if own is not None else (NO_LANDMARKS,)
        volume = quantise(levels, result.inside)
    rigid = params.registration == "rigid"
    verdict = assess_qc(result.numbers, notes, params.qc, rigid=rigid, contrast=contrast)
    return PreprocessedScan(
        volume=volume,
        native_to_mni=result.transform.native_to_mni,
        native_affine=head.native_affine,
        native_shape=head.native_shape,
        intensity_range=intensity_range,
        bias=result.bias,
        qc={
            "status": verdict.status,
            "reasons": "; ".join(verdict.reasons),
            **result.numbers,
            "strip_method": method,
            "wide_search": str(result.transform.wide_search).lower(),
        },
        notes=notes,
        timings=clock.seconds,
        tissue_levels=own,
    )


def _align(
    head: _Head,
    mask: Mask,
    params: PreprocessParams,
    clock: _Clock,
    start: Affine | None = None,
    *,
    search: bool = False,
) -> _Result:
    """Correct, register (from `start`) and resample the brain inside a mask, and measure it.

    With `search`, rotations all around are tried too.
    """
    margin = np.ceil(CROP_MARGIN / zooms_of(head.affine)).astype(np.int64)
    box = bounding_box(mask, margin)
    brain, inside, affine = head.data[box], mask[box], crop_affine(head.affine, box)
    bias = None
    with clock.step("bias"):
        if params.bias_field:
            brain, bias = correct_bias(brain, inside, affine, step=params.bias_field_step)
    with clock.step("register"):
        transform = register(
            brain,
            inside,
            affine,
            kind=params.registration,
            zooms=params.registration_zooms,
            search=search,
            start=start,
            metric=_metric(params.contrast or "T1w"),
        )
    with clock.step("resample"):
        values, on_grid = _onto_grid(brain, inside, affine, transform, params)
    if not on_grid.any():
        raise ScanError("no brain voxel reached the grid; the header's geometry is wrong")
    with clock.step("qc"):
        numbers = measure(
            native=head.data,
            native_mask=mask,
            native_affine=head.affine,
            native_to_mni=transform.native_to_mni,
            volume=values,
            mask=on_grid,
            grid=params.grid,
            rigid=params.registration == "rigid",
        )
    return _Result(values, on_grid, transform, bias, numbers)


def _metric(contrast: Contrast) -> Metric:
    return "GC" if contrast == "T1w" else "mattes"


def _searched(
    result: _Result, head: _Head, mask: Mask, params: PreprocessParams, clock: _Clock
) -> _Result:
    """Return the better of a result and, where that lies wrong, of a search all around."""
    numbers, contrast = result.numbers, params.contrast or "T1w"
    if not is_poor(numbers, USUAL, contrast) or _is_other_contrast(numbers, contrast):
        return result
    return _align(head, mask, params, clock, search=True)


def _rank(result: _Result, contrast: Contrast) -> tuple[bool, float]:
    """Order results: tissues where the template has them, then the overlap."""
    return not is_other_contrast(result.numbers, USUAL, contrast), result.numbers["dice"]


def _doubtful(numbers: dict[str, float], contrast: Contrast) -> bool:
    low, high = USUAL_BRAIN_ML
    # The wrong one of the poses that a search found, such as upside down, overlaps well too.
    askew = numbers["turned"] > USUAL.turned_warn and numbers["ncc"] < SURE_NCC
    return (
        askew
        or numbers["dice"] < SECOND_OPINION_DICE
        or is_poor(numbers, USUAL, contrast)
        or not low <= numbers["brain_ml"] <= high
    )


def _is_other_contrast(numbers: dict[str, float], contrast: Contrast) -> bool:
    """Return whether mask and pose are right and the image is of another contrast.

    No other mask would help, and looking for one costs minutes.
    """
    lies_well = numbers["dice"] >= SECOND_OPINION_DICE and numbers["turned"] <= USUAL.turned_warn
    return lies_well and is_other_contrast(numbers, USUAL, contrast)


def _second_opinions(
    head: _Head, mask: Mask, method: str, contrast: Contrast, device: str
) -> list[tuple[str, Opinion]]:
    """Return other ways to a brain mask and their names, the cheapest first."""
    if method != "deepbet":
        return [(f"{method}, then deepbet", lambda: (deepbet_mask(head.data, device) & mask, None))]
    poses = find_poses(head.data, mask, head.affine, _metric(contrast))

    def upright() -> tuple[Mask, Affine | None]:
        pose = next(poses, None)
        if pose is None:
            raise ScanError("no further pose")
        return upright_mask(head.data, mask, head.affine, pose, device)

    opinions: list[tuple[str, Opinion]] = [(UPRIGHT, upright), (UPRIGHT, upright)]
    if hdbet_is_installed():
        opinions.append(("hd-bet", lambda: (hdbet_mask(head.data, zooms_of(head.affine)), None)))
    return opinions


def _aligned_otherwise(
    head: _Head, find_mask: Opinion, params: PreprocessParams, clock: _Clock
) -> _Result | None:
    """Return the outcome of another mask; None where it finds no brain."""
    try:
        with clock.step("strip"):
            mask, start = find_mask()
        if not mask.any():
            return None
        result = _align(head, mask, params, clock, start)
        # A start was searched for already.
        return result if start is not None else _searched(result, head, mask, params, clock)
    except ScanError:
        return None


def _load_head(path: Path, params: PreprocessParams) -> _Head:
    scan = read_scan(path, max_bytes=params.max_bytes)
    data, affine = to_ras(scan.data, scan.affine)
    box = bounding_box(content_mask(data), 1)
    data, affine = np.ascontiguousarray(data[box]), crop_affine(affine, box)
    check_field_of_view(data.shape, affine)
    shape: Any = scan.data.shape
    return _Head(data, affine, shape, scan.affine, scan.notes)


def _brain_mask(head: _Head, params: PreprocessParams, device: str) -> tuple[Mask, str]:
    """Return the brain mask and the method that gave it."""
    voxel_ml = float(np.prod(zooms_of(head.affine))) / 1000
    if params.brain_mask == "none":
        return content_mask(head.data), "none"
    if params.brain_mask == "auto":
        mask = stripped_mask(head.data, voxel_ml)
        if mask is not None:
            return mask, "already stripped"
    if params.brain_mask == "hd-bet":
        return hdbet_mask(head.data, zooms_of(head.affine)), "hd-bet"
    if params.brain_mask == "bet":
        return bet_mask(head.data, head.affine), "bet"
    return deepbet_mask(head.data, device), "deepbet"


def _onto_grid(
    brain: npt.NDArray[np.float32],
    inside: Mask,
    affine: Affine,
    transform: Registration,
    params: PreprocessParams,
) -> tuple[npt.NDArray[np.float32], Mask]:
    to_native: Affine = np.asarray(np.linalg.inv(transform.native_to_mni), dtype=np.float64)
    grid, shape = grid_affine(params.grid), params.grid.shape
    if transform.displacement is None or transform.displacement_affine is None:
        return resample_masked(brain, inside, affine, to_native @ grid, shape)
    return resample_masked_warped(
        brain,
        inside,
        affine,
        grid=grid,
        shape=shape,
        displacement=transform.displacement,
        displacement_affine=transform.displacement_affine,
        to_native=to_native,
    )
