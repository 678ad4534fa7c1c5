"""Cases in courses away from their own volume, and regions found in a process beside."""

import os

import numpy as np
import pytest

from pipeline.regions import own_regions
from pipeline.regions.cases import Case, made_cases, read_made
from pipeline.regions.judge import RegionRun
from pipeline.regions.meter import RegionMeter
from pipeline.regions.own_regions import OwnRegions
from schemas.results import RegionMetrics
from tests.support.shrunken_brain import GRID, shrunken


def test_a_course_goes_to_one_side_nearest_first(brain):
    numbers = {"a": -2.0, "b": 1.5, "c": -1.0, "d": 0.5}
    after = dict.fromkeys([*numbers, "visit", "other"], brain)
    case = Case(scan_id="s", subject_id="s", before=brain, after=after, numbers=numbers)
    assert sorted(case.courses()) == [["c", "a"], ["d", "b"], ["other"], ["visit"]]


def test_what_was_made_tells_how_far_along_it_lies(made):
    _, documents = read_made(made, None)
    case = next(made_cases(made, documents, None))
    assert case.numbers == {"scale +1": 1.0}


def test_a_strip_is_measured_as_its_volumes_are_alone(brain, atlas, tmp_path):
    meter = RegionMeter(parcellation=atlas, grid=GRID, own_regions=False)
    factors = {"scale -1": 1.1, "scale +1": 0.9, "scale +2": 0.8}
    after = {group: shrunken(brain, factor) for group, factor in factors.items()}
    numbers = {group: float(group.split()[1]) for group in factors}
    case = Case(scan_id="s", subject_id="s", before=brain, after=after, numbers=numbers)
    metrics = RegionMetrics(atlas=atlas.name, compared="", space="mni")
    changes = RegionRun(meter=meter, out=tmp_path).measure([case], metrics)
    assert list(dict.fromkeys(changes["group"])) == list(factors)
    for group, rows in changes.groupby("group"):
        alone = meter.change(brain, case.after[str(group)]).table
        for column in ("ml", "intensity_percent"):
            np.testing.assert_allclose(rows[column], alone[column], rtol=1e-5)
        np.testing.assert_allclose(rows["volume_percent"], alone["volume_percent"], atol=0.5)


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setattr(own_regions, "available_cpus", lambda: 2)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_regions_found_beside_are_those_found_here(brain, atlas):
    meter = RegionMeter(parcellation=atlas, grid=GRID)
    with OwnRegions(meter) as regions:
        assert regions.pool is not None
        beside = regions.begin(brain)()
    np.testing.assert_array_equal(beside.toarray(), meter.regions_of(brain).toarray())


def end_at_once(*_):
    os._exit(1)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_a_process_that_ends_is_done_without(brain, atlas, monkeypatch, caplog):
    meter = RegionMeter(parcellation=atlas, grid=GRID)
    monkeypatch.setattr(own_regions, "syn_deformation", end_at_once)
    with OwnRegions(meter) as regions:
        found = regions.begin(brain)()
        again = regions.begin(brain)()
    assert "going on without it" in caplog.text
    assert found.nnz == again.nnz > 0
