"""Parts of the template's tissue maps are those of the whole."""

import numpy as np
import pytest

from pipeline.imaging.atlas.tissue_maps import slices_of, template_maps, ventricle_map

PART = ((-60, 50), (-80, 60), (-30, 44))


@pytest.fixture(scope="module")
def whole():
    return template_maps()


def test_a_part_is_cut_out_of_the_whole(whole):
    for name, part in template_maps(PART).items():
        np.testing.assert_array_equal(part, whole[name][slices_of(PART)])
        assert part.shape == (111, 141, 75)


def test_ventricles_of_a_part_are_those_of_the_whole(whole):
    of_all = ventricle_map(whole["csf"])
    assert 15_000 < of_all.sum() < 60_000
    part = ventricle_map(template_maps(PART)["csf"], (-60.0, -80.0, -30.0))
    np.testing.assert_array_equal(part, of_all[slices_of(PART)])
    assert part.sum() == pytest.approx(of_all.sum())
