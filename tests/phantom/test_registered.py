"""Phantoms drawn on the registered grid are what preprocessing makes of their scans."""

import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.imaging.preprocess_scan import preprocess_scan
from pipeline.phantom.cohort import image_path
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import make_subject, make_visits
from schemas.grid import GridParams
from schemas.params import PreprocessParams
from tests.support.phantoms import TINY

GRID = GridParams(shape=(56, 72, 64), zooms=3.0)


@pytest.fixture(scope="module")
def phantoms() -> RegisteredPhantoms:
    return RegisteredPhantoms(mni_grid(GRID))


def _visit(number):
    return make_visits(make_subject(number, TINY))[0]


@pytest.mark.slow
def test_a_drawn_phantom_is_the_preprocessed_one(phantoms, dataset):
    drawn = [phantoms.draw(_visit(number)).astype(float) for number in (1, 2)]
    path = image_path(dataset, _visit(1))
    made = preprocess_scan(path, PreprocessParams(grid=GRID)).volume.astype(float)
    inside = (made > 0) & (drawn[0] > 0)
    assert 2 * inside.sum() / ((made > 0).sum() + (drawn[0] > 0).sum()) > 0.95
    own, other = (np.corrcoef(made[inside], volume[inside])[0, 1] for volume in drawn)
    assert own > 0.85
    assert own > other + 0.05
    assert abs(np.median(made[inside]) - np.median(drawn[0][inside])) < 20


@pytest.mark.slow
def test_a_drawn_phantom_depends_on_its_visit_alone(phantoms):
    first = phantoms.draw(_visit(1))
    phantoms.draw(_visit(2))
    assert np.array_equal(first, phantoms.draw(_visit(1)))
