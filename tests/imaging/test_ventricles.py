"""The ventricle measure where the truth is known: planted fluid, phantoms, real people's labels."""

import csv
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.ventricles import (
    intensity_levels,
    native_ml,
    ventricle_ml,
    ventricle_territory,
)
from schemas.grid import GridParams
from schemas.params import PreprocessParams
from tests.support.real_data import real_more

DEMO, CPU, FINE = (
    GridParams(shape=(56, 64, 56), zooms=3.0),
    GridParams(shape=(64, 80, 64), zooms=3.0),
    GridParams(shape=(128, 160, 128), zooms=1.5),
)
FLUID, GREY, WHITE = 0.1, 0.62, 0.95
"""Of T1w scans as preprocessing leaves them; more of the planted brain is grey than white."""
Array = np.ndarray


def averaged(inside: Array, sub: int) -> Array:
    """Return the share of each voxel of which `sub` times finer voxels are inside."""
    x, y, z = (n // sub for n in inside.shape)
    return inside.reshape(x, sub, y, sub, z, sub).mean((1, 3, 5), dtype=np.float32)


@lru_cache(maxsize=3)
def finer_axes(grid: GridParams, sub: int) -> tuple[Array, Array, Array]:
    """Return the open axes (mm) of a grid of `sub` times finer voxels in the same box."""
    fine = GridParams(shape=tuple(n * sub for n in grid.shape), zooms=grid.zooms / sub)
    affine = grid_affine(fine)
    x, y, z = (
        (affine[i, i] * np.arange(n) + affine[i, 3]).astype(np.float32)
        for i, n in enumerate(fine.shape)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


@lru_cache(maxsize=32)
def planted(ml: float, grid: GridParams, *, further: bool = False) -> Array:
    """Return a brain of two ellipsoids of fluid, `ml` together, where ventricles lie.

    Narrow, long and of half the height, as the bodies are. `further` adds widened sulci and
    cisterns, and a third ventricle.
    """
    sub = round(grid.zooms / 0.75)
    x, y, z = finer_axes(grid, sub)
    shape = np.array([0.36, 1.05, 0.5])
    a, b, c = shape / np.cbrt(shape.prod()) * np.cbrt(ml * 1000 / 2 * 3 / 4 / np.pi)
    fluid = ((np.abs(x) - a - 1.5) / a) ** 2 + ((y + 14) / b) ** 2 + ((z - 15) / c) ** 2 < 1
    depth = (x / 66) ** 2 + ((y + 17) / 82) ** 2 + ((z - 8) / 62) ** 2
    if further:
        fluid |= (depth > 0.8) & (np.sin(x / 4) * np.sin(y / 4) * np.sin(z / 4) > 0.2)
        fluid |= (np.abs(x) < 25) & (np.abs(y + 42) < 12) & (np.abs(z + 14) < 8)
        fluid |= (np.abs(x) < 3) & (np.abs(y + 8) < 14) & (np.abs(z + 8) < 6)
    white, grey = (depth < 0.6) & ~fluid, (depth >= 0.6) & (depth < 1) & ~fluid
    tissue = averaged(white, sub) * WHITE + averaged(grey, sub) * GREY
    return tissue + averaged((depth < 1) & fluid, sub) * FLUID


@pytest.mark.slow
@pytest.mark.parametrize("grid", [CPU, FINE], ids=["3 mm", "1.5 mm"])
def test_ventricles_of_8_to_130_ml_measure_their_own_size(grid: GridParams):
    true = np.array([8, 16, 30, 50, 75, 100, 130])
    measured = np.array([ventricle_ml(planted(ml, grid), grid_affine(grid)) for ml in true])
    np.testing.assert_allclose(measured, true, rtol=0.15)
    assert 0.84 < np.polyfit(true, measured, 1)[0] < 1.1
    assert np.corrcoef(true, measured)[0, 1] > 0.995


@pytest.mark.slow
def test_all_grids_measure_the_same():
    for ml in (15, 60):
        on_cpu, *others = (
            ventricle_ml(planted(ml, grid), grid_affine(grid)) for grid in (CPU, DEMO, FINE)
        )
        assert others == pytest.approx([on_cpu] * 2, rel=0.08)


@pytest.mark.slow
def test_fluid_outside_the_ventricles_is_left_out():
    affine = grid_affine(CPU)
    for ml in (15, 60):
        alone, among = (planted(ml, CPU, further=further) for further in (False, True))
        added = (alone - among).clip(0).sum() / (WHITE - FLUID) * 0.027
        assert added > 40, "ml of other fluid"
        assert ventricle_ml(among, affine) == pytest.approx(ventricle_ml(alone, affine), abs=3)


@pytest.mark.slow
def test_a_brain_without_ventricles_measures_next_to_nothing():
    brain = planted(20, CPU)
    empty = np.where(brain > 0, np.maximum(brain, GREY), 0).astype(np.float32)
    assert ventricle_ml(empty, grid_affine(CPU)) == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).normal(0, 0.05, empty.shape)
    assert ventricle_ml(np.clip(empty + noise * (empty > 0), 0, 1), grid_affine(CPU)) < 0.5
    nothing = np.zeros(CPU.shape, np.float32)
    assert np.isnan(ventricle_ml(nothing, grid_affine(CPU)))


@pytest.mark.slow
def test_a_tenth_of_a_millilitre_more_measures_more():
    affine = grid_affine(CPU)
    own = intensity_levels(planted(30, CPU), affine)
    true = 30 + 0.1 * np.arange(6)
    measured = [ventricle_ml(planted(ml, CPU), affine, levels=own) for ml in true]
    steps = np.diff(measured)
    assert (steps > 0).all()
    assert steps.max() < 0.4


@pytest.mark.slow
def test_levels_of_the_scan_keep_the_rule_for_what_is_made_of_it():
    scan, affine = planted(30, CPU), grid_affine(CPU)
    own = intensity_levels(scan, affine)
    assert own == pytest.approx((FLUID, GREY), abs=0.02)
    brighter = np.where(scan > 0, scan * 0.8 + 0.2, 0)
    assert ventricle_ml(brighter, affine, levels=own) < ventricle_ml(scan, affine) - 3
    assert ventricle_ml(brighter, affine) == pytest.approx(ventricle_ml(scan, affine), rel=0.02)


def test_the_territory_holds_the_horns_and_no_cortex():
    territory = ventricle_territory(FINE.shape, grid_affine(FINE))
    to_voxel = np.linalg.inv(grid_affine(FINE))

    def share(*mm: float) -> float:
        voxel = to_voxel @ [*mm, 1]
        return float(territory[tuple(np.rint(voxel[:3]).astype(int))])

    for side in (-1, 1):
        assert share(side * 18, 30, 5) > 0.9, "frontal horn"
        assert share(side * 26, -66, 5) > 0.9, "occipital horn"
        assert share(side * 28, -42, 5) > 0.9, "atrium"
        assert share(side * 50, 10, 0) == 0, "insula and operculum"
        assert share(side * 12, -35, -8) == 0, "ambient cistern"
    assert share(0, -10, -5) == 0, "third ventricle"
    assert 200 < territory.sum() * 1.5**3 / 1000 < 350, "ml: a fifth of the brain at most"


def test_native_millilitres_undo_the_scaling_of_registration():
    turn = np.array([[0, -1.2, 0, 5], [1.1, 0, 0, 7], [0, 0, 1.25, -9], [0, 0, 0, 1]])
    assert native_ml(33, turn) == pytest.approx(33 / (1.2 * 1.1 * 1.25))
    mirrored = turn @ np.diag([-1, 1, 1, 1])
    assert native_ml(33, mirrored) == native_ml(33, turn), "a volume has no sign"


def references() -> Iterator[tuple[str, str, float]]:
    """Yield the file, below real_more, of two heads and the ml of their lateral ventricles."""
    root = real_more() / "derivatives"
    for table, subject in (
        ("neuromorphometrics/volumes.tsv", "sub-oas0456"),
        ("nichart_volumes.tsv", "sub-eld14"),
    ):
        with (root / table).open() as file:
            rows = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
        true = float(rows[subject]["lateral_ventricles_ml"])
        yield subject, f"{subject}/anat/{subject}_T1w.nii.gz", true


@pytest.mark.slow
def test_real_elders_measure_what_others_labelled():
    from pipeline.imaging.preprocess_scan import preprocess_scan

    for subject, file, true in references():
        scan = preprocess_scan(real_more() / file, PreprocessParams(grid=CPU))
        on_grid = ventricle_ml(scan.volume.astype(np.float32) / 255, grid_affine(CPU))
        assert native_ml(on_grid, scan.native_to_mni) == pytest.approx(true, rel=0.15), subject
