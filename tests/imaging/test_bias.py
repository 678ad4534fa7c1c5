"""The bias field of a scan, resampled."""

import numpy as np
from scipy.ndimage import zoom

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.bias import BiasField
from pipeline.stores.volumes import BIAS_GRID
from schemas.grid import GridParams


def test_the_stored_samples_of_a_bias_field_are_enough():
    """A field with N4's 25 mm knots, on its own 6 mm samples and on those of the store."""
    knots = np.random.default_rng(0).normal(0, 0.15, (11, 12, 11))
    fine = zoom(knots, 25 / 6, order=3).astype(np.float32)
    affine = np.diag([6.0, 6, 6, 1])
    affine[:3, 3] = -3 * np.array(fine.shape) + np.array([4, -15, 8])
    field = BiasField(fine, affine)
    stored = field.resampled(grid_affine(BIAS_GRID), BIAS_GRID.shape)
    grid = GridParams(shape=(70, 90, 70), zooms=2.0)
    exact = field.on(grid_affine(grid), grid.shape)
    assert np.std(np.log(exact)) > 0.08
    assert np.std(np.log(stored.on(grid_affine(grid), grid.shape) / exact)) < 0.02
