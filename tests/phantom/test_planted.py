"""Planted atrophy: where it is, how much, and that the rest stays."""

import numpy as np
import pytest
import torch

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.phantom.grid import BRAIN
from pipeline.phantom.planted import PlantedAtrophy
from schemas.errors import ParamsError
from schemas.grid import GridParams

GRID = GridParams(shape=(48, 60, 48), zooms=4.0)
PLACE = (-30.0, -20.0, -15.0)


class OneBall:
    """An atlas of one cause: tissue flows towards a place."""

    def __init__(self):
        away = BRAIN.points() - torch.tensor(PLACE)
        distance = away.norm(dim=-1, keepdim=True)
        velocity = -0.04 * away * torch.exp(-((distance / 25) ** 2))
        self.velocities = {"medial_temporal": velocity.movedim(-1, 0)}


@pytest.fixture(scope="module")
def planted():
    return PlantedAtrophy.of({"medial_temporal": 1.0}, OneBall())


def world():
    affine = grid_affine(GRID)
    index = np.moveaxis(np.indices(GRID.shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def test_tissue_shrinks_at_the_place_by_the_amount(planted):
    growth = planted.volume_percent(grid_affine(GRID), GRID.shape)
    away = np.linalg.norm(world() - PLACE, axis=-1)
    # Near the middle the flow is a contraction of e^-0.04 an axis.
    assert growth[away < 5].mean() == pytest.approx(100 * (np.exp(-0.12) - 1), abs=1)
    assert np.abs(growth[away > 70]).max() < 0.1


def test_an_image_follows_in_its_own_space(planted):
    """The volume of a soft ball, stored turned and shifted, shrinks as the truth says."""
    affine = grid_affine(GRID)
    turned = affine.copy()
    turned[:3, 0] *= -1
    turned[0, 3] *= -1
    pose = np.eye(4)
    pose[:3, 3] = (4, -3, 6)
    native = np.linalg.inv(pose) @ turned
    away = np.linalg.norm(world() - PLACE, axis=-1)[::-1]
    ball = np.exp(-((away / 16) ** 2)).astype(np.float32)
    after = planted.plant(ball, native, pose)
    truth = planted.volume_percent(turned, GRID.shape)
    expected = (ball * (1 + truth / 100)).sum() / ball.sum()
    assert after.sum() / ball.sum() == pytest.approx(expected, abs=0.005)
    assert after.sum() < 0.96 * ball.sum()
    np.testing.assert_array_equal(after[away > 80], ball[away > 80])


def test_no_amount_changes_nothing(planted):
    none = PlantedAtrophy.of({"medial_temporal": 0.0}, OneBall())
    data = np.random.default_rng(0).random(GRID.shape).astype(np.float32)
    np.testing.assert_array_equal(none.plant(data, grid_affine(GRID), np.eye(4)), data)
    with pytest.raises(ParamsError, match="planted: hippocampus; expected of ventricle"):
        PlantedAtrophy.of({"hippocampus": 1.0}, OneBall())
