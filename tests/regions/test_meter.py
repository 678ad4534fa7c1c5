"""Changes of regions against those that were made."""

import numpy as np
import pytest

from pipeline.regions.meter import COLUMNS, VENTRICLES, RegionMeter
from tests.support.shrunken_brain import GRID, shrunken


@pytest.fixture(scope="module")
def meter(atlas):
    return RegionMeter(parcellation=atlas, grid=GRID, own_regions=False)


def test_the_region_that_shrinks_is_found_and_the_other_is_not(meter, brain):
    change = meter.change(brain, shrunken(brain, 0.8), head_per_template=1.5)
    assert tuple(change.table.columns) == COLUMNS
    by_region = change.table.set_index("region")
    assert by_region.loc["shrinks", "volume_percent"] < -5
    assert abs(by_region.loc["stays", "volume_percent"]) < 2
    # A ball of 15 mm, in millilitres of a head that is half as large again.
    assert by_region.loc["shrinks", "ml"] == pytest.approx(1.5 * 14.1, rel=0.03)
    assert by_region.loc["shrinks", "volume_ml"] == pytest.approx(
        by_region.loc["shrinks", "ml"] * by_region.loc["shrinks", "volume_percent"] / 100
    )
    assert set(by_region["kind"]) == {"atlas", "tissue", "ventricles"}


def test_intensity_is_told_apart_from_volume(meter, brain):
    brighter = np.where(brain > 0, 1.05 * brain, 0)
    table = meter.change(brain, brighter.astype(np.float32)).table.set_index("region")
    assert table.loc["shrinks", "intensity_percent"] == pytest.approx(5, abs=1.5)
    assert abs(table.loc["shrinks", "volume_percent"]) < 1


def test_nothing_changes_between_equal_volumes(meter, brain):
    table = meter.change(brain, brain.copy()).table
    np.testing.assert_array_equal(table["volume_percent"], 0)
    assert VENTRICLES in set(table["region"])
