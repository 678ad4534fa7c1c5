"""Pictures of values by region: brains drawn once, and each group shown as by itself."""

import io

import numpy as np
import pytest
from matplotlib import image

from pipeline.figures.region_maps import region_figures
from tests.support.shrunken_brain import ball_atlas

VALUES = {"shrinks": -6.0, "stays": 2.0}


def pictures(groups):
    shown = {}
    for group, kind, figure in region_figures(ball_atlas(), groups):
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=60)
        content.seek(0)
        shown[group, kind] = image.imread(content)
    return shown


@pytest.mark.slow
def test_a_group_looks_the_same_after_another_as_alone():
    other = {name: 0.5 * value for name, value in VALUES.items()}
    both = pictures({"first": VALUES, "nothing known": {"stays": np.nan}, "second": other})
    alone = pictures({"second": other})
    assert list(both) == [(g, k) for g in ("first", "second") for k in ("glass", "slices")]
    for kind in ("glass", "slices"):
        np.testing.assert_allclose(both["second", kind], alone["second", kind], atol=0.02)
        # Scales and titles differ, places do not.
        assert 0 < (both["first", kind] != both["second", kind]).mean() < 0.1
