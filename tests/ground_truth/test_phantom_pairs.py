"""True counterfactuals of phantoms: the same head, and the volumes that changed."""

import numpy as np
import pytest

from pipeline.ground_truth.phantom_pairs import true_pair, with_severity
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.imaging.ventricles import ventricle_ml
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import make_subject
from schemas.grid import GridParams
from schemas.params import PhantomParams


@pytest.fixture(scope="module")
def phantoms():
    return RegisteredPhantoms(mni_grid(GridParams(shape=(32, 40, 32), zooms=6.0)))


@pytest.fixture(scope="module")
def person():
    return make_subject(2, PhantomParams(subjects=2))


def test_only_severity_differs(person):
    before, after = with_severity(person, 0.0), with_severity(person, 0.4)
    assert after.atrophy == pytest.approx(before.atrophy + 0.4)
    assert (before.seed, before.scanner_seed, before.lesion) == (
        after.seed, after.scanner_seed, after.lesion,
    )  # fmt: skip
    assert before.amplitudes["age"] == after.amplitudes["age"]
    assert before.amplitudes["ventricle"] < after.amplitudes["ventricle"]
    assert with_severity(person, -9.0).atrophy == 0


@pytest.mark.slow
def test_the_truth_grows_where_the_ventricles_are(phantoms, person):
    pair = true_pair(phantoms, person, 0.6)
    own_ml, true_ml = (ventricle_ml(v, phantoms.affine) for v in (pair.own, pair.truth))
    assert true_ml > 1.2 * own_ml
    fluid = pair.own < 0.35
    inside = pair.own > 0
    assert pair.volume_percent[fluid & inside].mean() > 2
    assert pair.volume_percent[~fluid & inside].mean() < 0
    np.testing.assert_array_equal(pair.volume_percent[~inside], 0)


@pytest.mark.slow
def test_no_change_is_the_same_head(phantoms, person):
    pair = true_pair(phantoms, person, 0.0)
    np.testing.assert_array_equal(pair.own, pair.truth)
    np.testing.assert_allclose(pair.volume_percent, 0, atol=1e-3)
