"""Grey and white matter at the same levels, whatever the scanner."""

import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.atlas.tissue_maps import ORIGIN, template_maps
from pipeline.imaging.geometry import resample_masked
from pipeline.imaging.intensities import STANDARD, TissueLevels, restore, standardise, tissue_levels
from schemas.grid import GridParams

GRID = GridParams(shape=(64, 80, 64), zooms=3.0)


@pytest.fixture(scope="module")
def template():
    """T1w template in [0, 1] and its brain on the grid."""
    maps, at_1mm = template_maps(), np.eye(4)
    at_1mm[:3, 3] = ORIGIN
    affine = grid_affine(GRID)
    levels, inside = resample_masked(maps["t1"], maps["mask"] > 0, at_1mm, affine, GRID.shape)
    return np.clip(levels, 0, 1), inside, affine


@pytest.mark.parametrize("power", [0.6, 1.0, 1.8])
def test_scanners_of_any_contrast_end_at_the_same_levels(template, power):
    levels, inside, affine = template
    seen = levels**power
    own = tissue_levels(seen, inside, affine)
    assert own is not None
    moved = standardise(seen, own)
    again = tissue_levels(moved, inside, affine)
    np.testing.assert_allclose(again, STANDARD, atol=1e-6)
    np.testing.assert_allclose(restore(moved, own), seen, atol=1e-9)


def test_two_scanners_differ_less_than_before(template):
    levels, inside, affine = template
    one, other = levels, levels**0.6
    before = np.abs(one - other)[inside].mean()
    moved = [standardise(x, tissue_levels(x, inside, affine)) for x in (one, other)]
    assert np.abs(moved[0] - moved[1])[inside].mean() < 0.2 * before


def test_order_within_a_scan_is_kept():
    levels = np.linspace(0, 1, 256)
    moved = standardise(levels, TissueLevels(0.3, 0.5))
    assert (np.diff(moved) > 0).all()
    assert (moved[0], moved[-1]) == (0, 1)


def test_other_contrasts_and_empty_brains_have_no_landmarks(template):
    levels, inside, affine = template
    assert tissue_levels(np.where(inside, 1 - levels, 0), inside, affine) is None
    assert tissue_levels(levels, np.zeros_like(inside), affine) is None
    assert tissue_levels(np.where(inside, 0.5, 0), inside, affine) is None
