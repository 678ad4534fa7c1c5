"""Volume change by a deformation: against changes that are known, and halfway frames."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.deformation import within_person
from pipeline.imaging.deformation.growth import volume_factor
from pipeline.imaging.deformation.within_person import deformation_between, deformations_along
from pipeline.imaging.halfway import halfway
from schemas.errors import ScanError
from schemas.grid import GridParams

AFFINE = grid_affine(GridParams(shape=(24, 28, 26), zooms=4.0))


def ball(radius):
    """A soft bright ball (radius in mm) with a dimmer one inside, on a brain of its own."""
    index = np.indices((24, 28, 26)).astype(float)
    away = 4 * np.sqrt(sum((i - c) ** 2 for i, c in zip(index, (11.5, 13.5, 12.5), strict=True)))
    brain = np.clip((40 - away) / 4 + 0.5, 0, 1) * 0.9
    return (brain - 0.6 * np.clip((radius - away) / 4 + 0.5, 0, 1)).astype(np.float32), away


def test_the_factor_of_a_linear_field_is_exact_on_turned_axes():
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 30, degrees=True).as_matrix() * [2, 3, 4]
    points = np.moveaxis(np.indices((6, 7, 8)), 0, -1) @ turned[:3, :3].T
    growth = np.array([[0.1, 0.05, 0], [0, -0.2, 0], [0.02, 0, 0.3]])
    factor = volume_factor((points @ growth.T).astype(np.float32), turned)
    np.testing.assert_allclose(factor, np.linalg.det(np.eye(3) + growth), rtol=1e-4)


def test_a_ball_that_grows_is_found_to_grow():
    before, away = ball(16.0)
    after, _ = ball(18.0)
    field = deformation_between(before, after, AFFINE)
    factor = volume_factor(field, AFFINE)
    grown = factor[away < 16].mean()
    assert grown == pytest.approx((18 / 16) ** 3, rel=0.12)
    rim = (away > 14) & (away < 18)
    centre = np.array((11.5, 13.5, 12.5))[:, None, None, None]
    outwards = 4 * (np.indices(before.shape) - centre) / away
    moved = (field * np.moveaxis(outwards, 0, -1)).sum(-1)[rim].mean()
    assert moved == pytest.approx(2.0, abs=0.4)


def test_on_turned_axes_the_same_growth_is_found():
    """Axes that run the other way, and voxels of other sizes along them."""
    before, away = ball(16.0)
    after, _ = ball(18.0)
    turned = AFFINE @ np.diag([-1, 1, 1, 1])
    turned[0, 3] = AFFINE[0, 3] + 4.0 * (before.shape[0] - 1)
    straight = deformation_between(before, after, AFFINE)
    mirrored = deformation_between(before[::-1].copy(), after[::-1].copy(), turned)
    np.testing.assert_allclose(mirrored[::-1], straight, atol=0.02)
    factor = volume_factor(mirrored, turned)[::-1][away < 16].mean()
    assert factor == pytest.approx(volume_factor(straight, AFFINE)[away < 16].mean(), abs=5e-3)


def test_there_and_back_are_inverse():
    """Neither volume is favoured: the one way undoes the other."""
    before, away = ball(16.0)
    after, _ = ball(18.0)
    there, back = (
        deformation_between(*pair, AFFINE) for pair in ((before, after), (after, before))
    )
    place = np.indices(before.shape, dtype=np.float32) + np.moveaxis(there, -1, 0) / 4
    again = np.stack([ndimage.map_coordinates(back[..., i], place, order=1) for i in range(3)], -1)
    assert np.abs(there + again)[away < 36].max() < 0.15 * np.abs(there).max()


def test_equal_volumes_do_not_change_and_empty_ones_are_refused():
    before, _ = ball(16.0)
    assert not deformation_between(before, before.copy(), AFFINE).any()
    with pytest.raises(ScanError, match="a volume is empty"):
        deformation_between(before, np.zeros_like(before), AFFINE)


@pytest.fixture
def rounds(monkeypatch):
    """Shapes of the rounds of Gauss–Newton that were taken."""
    taken, update = [], within_person._update
    monkeypatch.setattr(
        within_person, "_update", lambda u, *rest: taken.append(u.shape) or update(u, *rest)
    )
    return taken


def test_along_a_course_each_deformation_starts_from_the_one_before(rounds):
    before, away = ball(16.0)
    course = [(float(n), ball(16.0 + 0.7 * n)[0]) for n in (1, 2, 3)]
    fields = list(deformations_along(before, course, AFFINE))
    from_none = sum(count for count, _ in within_person.ROUNDS)
    assert len(rounds) == from_none + 2 * within_person.ROUNDS_ALONG
    for (number, after), field in zip(course, fields, strict=True):
        alone = deformation_between(before, after, AFFINE)
        grown, by_itself = (volume_factor(f, AFFINE)[away < 16].mean() for f in (field, alone))
        assert grown == pytest.approx((1 + 0.7 * number / 16) ** 3, rel=0.12)
        assert grown == pytest.approx(by_itself, abs=0.02)
        left, before_it = (np.square(unexplained(before, after, f)).sum() for f in (field, alone))
        assert left <= 1.02 * before_it


def unexplained(before, after, field):
    place = np.indices(before.shape, dtype=np.float32) + np.moveaxis(field, -1, 0) / 4
    return ndimage.map_coordinates(after, place, order=1) - before


@pytest.mark.parametrize(
    ("numbers", "second"),
    [((1.0, 9.0), 18.0), ((1.0, 2.0), 14.0), ((1.0, -1.0), 18.0)],
    ids=["too far", "the other way", "another side"],
)
def test_a_start_that_does_not_lead_there_is_not_taken(numbers, second):
    before, _ = ball(16.0)
    course = list(zip(numbers, (ball(17.0)[0], ball(second)[0]), strict=True))
    _, field = deformations_along(before, course, AFFINE)
    np.testing.assert_array_equal(field, deformation_between(before, course[1][1], AFFINE))


def test_halfway_forgets_what_registration_scaled():
    """Two visits of a head in two poses, the second registered 4 % too large."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", (6, -4, 8), degrees=True).as_matrix()
    pose[:3, 3] = (5, -3, 2)
    first = np.diag([1.1, 1.05, 1.08, 1.0])
    second = np.diag([1.04, 1.04, 1.04, 1.0]) @ first @ np.linalg.inv(pose)
    to_first, to_second, shared = halfway(first, second)
    # A point of the shared frame, brought to each head, is the same point of the head.
    points = np.c_[np.random.default_rng(0).uniform(-60, 60, (20, 3)), np.ones(20)].T
    here = np.linalg.inv(first) @ to_first @ points
    there = np.linalg.inv(pose) @ np.linalg.inv(second) @ to_second @ points
    distance = np.linalg.norm((here - there)[:3], axis=0)
    assert distance.max() < 2.0
    heads = [
        np.linalg.det(np.linalg.inv(m) @ way) for m, way in ((first, to_first), (second, to_second))
    ]
    assert heads[0] == pytest.approx(heads[1], rel=1e-6)
    assert np.linalg.det(shared) == pytest.approx(np.linalg.det(first) * 1.02**3, rel=0.01)


def test_halfway_of_one_scan_is_that_scan():
    first = np.diag([1.1, 1.05, 1.08, 1.0])
    first[:3, 3] = (1, 2, 3)
    to_first, to_second, shared = halfway(first, first)
    for way in (to_first, to_second):
        np.testing.assert_allclose(way, np.eye(4), atol=1e-9)
    assert np.linalg.det(shared) == pytest.approx(np.linalg.det(first))


def test_the_frames_of_the_two_are_mirror_images():
    first, second = np.diag([1.1, 1, 1, 1]), np.diag([1, 1.1, 1, 1.0])
    one = halfway(first, second)
    other = halfway(second, first)
    np.testing.assert_allclose(one[0], other[1], atol=1e-9)
