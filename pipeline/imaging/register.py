"""The transform from a scan to the MNI152 template."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.imaging.ants_setup import RAS_TO_LPS, ants_image, captured_ants_output, load_ants
from pipeline.imaging.atlas.mni152 import grid_affine, load_template
from pipeline.imaging.geometry import isotropic_grid, resample_masked, sample
from pipeline.imaging.header import Affine
from pipeline.imaging.turns import ranked_turns
from schemas.grid import GridParams

Kind = Literal["rigid", "affine", "syn"]
Metric = Literal["GC", "mattes"]
"""What a linear registration maximises: correlation, or mutual information."""
MARGIN = 12.0
"""Empty border around the brain during registration (mm)."""
SEARCH_ZOOMS = 4.0
"""Voxel size of the wide search (mm)."""
TURN_ZOOMS = 8.0
"""Voxel size at which quarter turns are ranked (mm)."""
REFINED_TURNS = 6
"""Quarter turns that are registered, the likeliest first."""
SURE_NCC = 0.5
"""Correlation of a rigid registration from which on no further pose is tried."""
SAMPLED, SAMPLED_IN_SEARCH = 0.1, 0.25
"""Share of the voxels that the metric is computed on; in the search there are fewer of them."""
STAGE = {"rigid": "Rigid", "affine": "Affine"}


@dataclass(frozen=True)
class Registration:
    """The transform from a scan to MNI152, and its quality."""

    native_to_mni: Affine
    """(4, 4), native world to MNI152 world (mm); the affine part under `syn`."""
    ncc: float
    """Correlation with the template inside its mask."""
    wide_search: bool
    """Whether a pose of the wide search was better than the first try."""
    displacement: npt.NDArray[np.float32] | None
    """(X, Y, Z, 3): added (mm) to MNI152 points before `native_to_mni` is undone; `syn` only."""
    displacement_affine: Affine | None
    """(4, 4), voxel of `displacement` to MNI152 world (mm)."""


def correlation(
    left: npt.NDArray[Any], right: npt.NDArray[Any], mask: npt.NDArray[np.bool_]
) -> float:
    """Return Pearson's r over a mask; 0 where one side is constant."""
    a, b = left[mask].astype(np.float64), right[mask].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], *, rigid: bool) -> float:
    """Return the Dice of two masks; under `rigid`, as a share of the best for their sizes."""
    sizes = float(one.sum()), float(other.sum())
    most = 2 * min(sizes) if rigid else sum(sizes)
    return 2 * float((one & other).sum()) / max(1.0, most)


def template_grid(zooms: float) -> GridParams:
    """Return a grid of the given voxel size (mm) with the usual field of view."""
    x, y, z = (int(np.ceil(extent / zooms)) for extent in (192, 240, 192))
    return GridParams(shape=(x, y, z), zooms=zooms)


def register(
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    affine: Affine,
    *,
    kind: Kind,
    zooms: float,
    search: bool,
    start: Affine | None = None,
    metric: Metric = "mattes",
) -> Registration:
    """Estimate the transform of a brain to the template on copies of `zooms` (mm).

    It starts from `start` (native world to MNI152 world), else from the centres of mass. With
    `search`, rotations all around are tried too, and what correlates best is kept. Of the metrics,
    correlation ("GC") places two scans of a person more alike, but the contrast must be that of the
    template.
    """
    grid = template_grid(zooms)
    brain, brain_affine = _coarse_brain(data, mask, affine, zooms)
    linear: Literal["rigid", "affine"] = "rigid" if kind == "rigid" else "affine"
    best, ncc = _attempt(brain, brain_affine, grid, linear, start, metric)
    wide = False
    for pose in find_poses(data, mask, affine, metric) if search else ():
        other, other_ncc = _attempt(brain, brain_affine, grid, linear, pose, metric)
        if other_ncc > ncc:
            best, ncc, wide = other, other_ncc, True
    field = field_affine = None
    if kind == "syn":
        field, field_affine = _nonlinear(brain, brain_affine, grid, best)
    return Registration(best, ncc, wide, field, field_affine)


def find_poses(
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    affine: Affine,
    metric: Metric = "mattes",
) -> Iterator[Affine]:
    """Yield how a head may lie: (4, 4), native world to MNI152 world (mm), the likeliest first.

    First the best of the 24 poses that a header with mixed-up axes leads to, the likeliest of them
    refined until one fits well. If none does, then the best of rotations all around: with a mask
    that holds more than the brain, the correlations of the two cannot be compared. Such a mask will
    do, but not a bias field estimated in it.
    """
    brain, brain_affine = _coarse_brain(data, mask, affine, SEARCH_ZOOMS)
    grid = template_grid(SEARCH_ZOOMS)
    turns = ranked_turns(brain, brain_affine, template_grid(TURN_ZOOMS))
    best, ncc, how = np.eye(4), -1.0, (metric, SAMPLED_IN_SEARCH)
    for _, start in turns[:REFINED_TURNS]:
        pose, found_ncc = _attempt(brain, brain_affine, grid, "rigid", start, *how)
        if found_ncc > ncc:
            best, ncc = pose, found_ncc
        if ncc >= SURE_NCC:
            break
    yield best
    if ncc < SURE_NCC:
        around = _all_around(brain, brain_affine, grid)
        tries = [_attempt(brain, brain_affine, grid, "rigid", i, *how) for i in (around, None)]
        yield max(tries, key=lambda pose: pose[1])[0]


def _coarse_brain(
    data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], affine: Affine, zooms: float
) -> tuple[npt.NDArray[np.float32], Affine]:
    grid, shape = isotropic_grid(mask, affine, zooms, MARGIN)
    brain, inside = resample_masked(data, mask, affine, grid, shape)
    high = float(np.percentile(brain[inside], 99.5)) if inside.any() else 1.0
    return np.clip(brain / max(high, 1e-6), 0, 1), grid


def _attempt(
    brain: npt.NDArray[np.float32],
    affine: Affine,
    grid: GridParams,
    kind: Literal["rigid", "affine"],
    initial: Affine | None,
    metric: Metric,
    sampled: float = SAMPLED,
) -> tuple[Affine, float]:
    """Run one linear registration and score it."""
    native_to_mni = _linear(brain, affine, grid, kind, initial, metric, sampled)
    template, inside = load_template(grid)
    target = np.linalg.inv(native_to_mni) @ grid_affine(grid)
    return native_to_mni, correlation(sample(brain, affine, target, grid.shape), template, inside)


def _linear(
    brain: npt.NDArray[np.float32],
    affine: Affine,
    grid: GridParams,
    kind: Literal["rigid", "affine"],
    initial: Affine | None,
    metric: Metric,
    sampled: float,
) -> Affine:
    template, _ = load_template(grid)
    folder = Path(tempfile.mkdtemp(prefix="register-"))
    try:
        start = None if initial is None else [write_affine_transform(initial, folder / "start.mat")]
        fixed, moving = ants_image(template, grid_affine(grid)), ants_image(brain, affine)
        with captured_ants_output("registration"):
            result = load_ants().registration(
                fixed=fixed,
                moving=moving,
                type_of_transform=STAGE[kind],
                initial_transform=start,
                outprefix=f"{folder}/linear_",
                aff_metric=metric,
                aff_iterations=(500, 200, 100),
                aff_shrink_factors=(4, 2, 1),
                aff_smoothing_sigmas=(2, 1, 0),
                aff_random_sampling_rate=sampled,
            )
        return _read_transforms(result["fwdtransforms"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _all_around(brain: npt.NDArray[np.float32], affine: Affine, grid: GridParams) -> Affine:
    """Search rotations all around at a coarse scale; returns native world to MNI152 world."""
    ants = load_ants()
    template, _ = load_template(grid)
    fixed, moving = ants_image(template, grid_affine(grid)), ants_image(brain, affine)
    folder = Path(tempfile.mkdtemp(prefix="search-"))
    try:
        with captured_ants_output("search of the pose"):
            path = ants.affine_initializer(
                fixed,
                moving,
                search_factor=30,
                radian_fraction=0.5,
                txfn=str(folder / "search.mat"),
            )
        return _read_transforms([path])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _nonlinear(
    brain: npt.NDArray[np.float32], affine: Affine, grid: GridParams, native_to_mni: Affine
) -> tuple[npt.NDArray[np.float32], Affine]:
    """Estimate the SyN field on top of the affine; returns it in MNI152 RAS millimetres."""
    ants = load_ants()
    template, _ = load_template(grid)
    target = grid_affine(grid)
    aligned = sample(brain, affine, np.linalg.inv(native_to_mni) @ target, grid.shape)
    folder = Path(tempfile.mkdtemp(prefix="syn-"))
    try:
        fixed, moving = ants_image(template, target), ants_image(aligned, target)
        with captured_ants_output("registration"):
            result = ants.registration(
                fixed=fixed,
                moving=moving,
                type_of_transform="SyNOnly",
                initial_transform="identity",
                outprefix=f"{folder}/syn_",
                reg_iterations=(40, 20, 10),
            )
        warp = next(p for p in result["fwdtransforms"] if p.endswith(".nii.gz"))
        field = ants.image_read(warp).numpy().astype(np.float32)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return field * np.array([-1, -1, 1], dtype=np.float32), target


def write_affine_transform(native_to_mni: Affine, path: Path) -> str:
    """Write native to MNI152 world (4, 4; RAS) as ITK has it, from template to native in LPS."""
    ants = load_ants()
    lps = RAS_TO_LPS @ np.linalg.inv(native_to_mni) @ RAS_TO_LPS
    transform = ants.create_ants_transform(
        transform_type="AffineTransform", dimension=3, matrix=lps[:3, :3], translation=lps[:3, 3]
    )
    ants.write_transform(transform, str(path))
    return str(path)


def _read_transforms(paths: Sequence[str]) -> Affine:
    """Compose ANTs' linear files (template point to native point, LPS) and invert: RAS."""
    ants = load_ants()
    template_to_native = np.eye(4)
    for path in reversed(paths):
        transform = ants.read_transform(path)
        matrix = np.asarray(transform.parameters[:9], dtype=np.float64).reshape(3, 3)
        translation = np.asarray(transform.parameters[9:12], dtype=np.float64)
        centre = np.asarray(transform.fixed_parameters[:3], dtype=np.float64)
        step = np.eye(4)
        step[:3, :3] = matrix
        step[:3, 3] = translation + centre - matrix @ centre
        template_to_native = step @ template_to_native
    return np.asarray(np.linalg.inv(RAS_TO_LPS @ template_to_native @ RAS_TO_LPS))
