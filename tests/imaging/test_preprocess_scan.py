"""Intensities of a preprocessed scan."""

import numpy as np

from pipeline.imaging.intensities import scale_intensities
from schemas.params import PreprocessParams


def test_minmax_maps_air_to_0_and_the_brightest_voxel_to_1():
    values = np.array([[0.0, 10.0, 55.0], [90.0, 200.0, 0.0]], np.float32)
    inside = values > 0
    levels, (low, high) = scale_intensities(values, inside, None)
    expected = np.rint(255 * values / 200)
    np.testing.assert_array_equal(levels[inside], expected[inside])
    assert (levels[~inside] == 0).all()
    # The way back, as native output goes it: 1 and 255 are the ends of the range.
    back = low + (levels[inside].astype(float) - 1) / 254 * (high - low)
    np.testing.assert_allclose(back, values[inside], atol=200 / 255 / 2 + 1e-4)


def test_a_choice_of_intensities_leaves_older_fingerprints_as_they_were():
    usual = PreprocessParams()
    assert "intensity" not in usual.content()
    assert "intensity" not in usual.recorded()
    published = usual.model_copy(update={"intensity": "minmax"})
    assert published.content()["intensity"] == "minmax"
    assert PreprocessParams.model_validate(published.recorded()) == published
    moved = usual.model_copy(update={"intensity": "landmarks"})
    assert moved.content()["intensity"] == "landmarks"
    assert moved.content()["intensity_percentiles"] == [0.5, 99.5]
