"""Resampling, grid, template, scaling, QC, mosaic: closed forms and invariances."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.imaging.atlas.mni152 import GRID_CENTRE, grid_affine, load_template
from pipeline.imaging.brain import stripped_mask
from pipeline.imaging.geometry import (
    bounding_box,
    isotropic_grid,
    resample_masked,
    resample_masked_warped,
    sample,
    smooth_for,
)
from pipeline.imaging.intensities import scale_intensities
from pipeline.imaging.qc import _turned, assess_qc
from pipeline.imaging.register import correlation
from schemas.errors import ScanError
from schemas.grid import GridParams
from schemas.params import QcParams
from tests.support.qc_numbers import GOOD

DEMO, FINE = GridParams(shape=(64, 80, 64), zooms=3.0), GridParams(shape=(128, 160, 128), zooms=1.5)


def test_grids_of_equal_extent_share_their_borders() -> None:
    for grid in (DEMO, FINE):
        affine = grid_affine(grid)
        low = affine @ [-0.5, -0.5, -0.5, 1]
        high = affine @ [*(np.asarray(grid.shape) - 0.5), 1]
        np.testing.assert_allclose((low + high)[:3] / 2, GRID_CENTRE)
        np.testing.assert_allclose((high - low)[:3], [192, 240, 192])


def test_template_brain_lies_in_the_middle_of_the_grid() -> None:
    volume, mask = load_template(DEMO)
    assert volume.shape == mask.shape == (64, 80, 64)
    box = bounding_box(mask)
    middle = [(s.start + s.stop) / 2 for s in box]
    np.testing.assert_allclose(middle, [32, 40, 32], atol=1)
    assert 1.7e6 < mask.sum() * 27 < 2.0e6
    assert correlation(volume, volume, mask) == pytest.approx(1)


def test_sample_reads_a_linear_field_exactly() -> None:
    shape = (7, 8, 9)
    affine = np.diag([2.0, 3.0, 1.5, 1.0])
    affine[:3, 3] = [-3, 4, 5]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    field = (world @ [0.5, -1.0, 2.0]).astype(np.float32)
    grid = np.diag([1.0, 1.0, 1.0, 1.0])
    grid[:3, 3] = [-1, 8, 7]
    got = sample(field, affine, grid, (4, 5, 3))
    points = np.stack(np.meshgrid(*map(np.arange, (4, 5, 3)), indexing="ij"), -1) + grid[:3, 3]
    np.testing.assert_allclose(got, points @ [0.5, -1.0, 2.0], atol=1e-4)


def test_masked_resampling_keeps_a_constant_brain_constant() -> None:
    mask = np.zeros((20, 24, 22), bool)
    mask[4:15, 6:19, 5:16] = True
    data = np.where(mask, 7, 900).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    volume, inside = resample_masked(data, mask, affine, grid, (7, 8, 8))
    np.testing.assert_allclose(volume[inside], 7, rtol=1e-5)
    assert (volume[~inside] == 0).all()
    assert inside.sum() * 27 == pytest.approx(mask.sum(), rel=0.25)


def test_zero_displacement_is_plain_resampling() -> None:
    rng = np.random.default_rng(3)
    data = rng.uniform(1, 2, (14, 16, 18)).astype(np.float32)
    mask = np.ones(data.shape, bool)
    affine, to_native = np.eye(4), np.diag([1.1, 0.9, 1.0, 1.0])
    grid, shape = np.diag([2.0, 2.0, 2.0, 1.0]), (6, 7, 8)
    plain, inside = resample_masked(data, mask, affine, to_native @ grid, shape)
    warped, other = resample_masked_warped(
        data,
        mask,
        affine,
        grid=grid,
        shape=shape,
        displacement=np.zeros((*shape, 3), np.float32),
        displacement_affine=grid,
        to_native=to_native,
    )
    np.testing.assert_array_equal(inside, other)
    np.testing.assert_allclose(plain, warped, atol=1e-4)


def test_displacement_moves_what_is_read() -> None:
    data = np.zeros((20, 20, 20), np.float32)
    data[12, 10, 10] = 1
    shift = np.zeros((20, 20, 20, 3), np.float32)
    shift[..., 0] = 2
    moved, _ = resample_masked_warped(
        data,
        np.ones(data.shape, bool),
        np.eye(4),
        grid=np.eye(4),
        shape=data.shape,
        displacement=shift,
        displacement_affine=np.eye(4),
        to_native=np.eye(4),
    )
    assert np.unravel_index(moved.argmax(), moved.shape) == (10, 10, 10)


def test_smoothing_leaves_coarse_axes_alone() -> None:
    rng = np.random.default_rng(4)
    data = rng.normal(size=(12, 13, 14)).astype(np.float32)
    assert smooth_for(data, np.diag([3.0, 4.0, 5.0, 1.0]), 3.0) is data
    mixed = smooth_for(data, np.diag([1.0, 4.0, 5.0, 1.0]), 3.0)
    assert mixed.std(axis=0).mean() < 0.8 * data.std(axis=0).mean()


def test_isotropic_grid_holds_the_mask() -> None:
    mask = np.zeros((30, 20, 10), bool)
    mask[5:25, 4:16, 2:8] = True
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    grid, shape = isotropic_grid(mask, affine, 3.0, 6.0)
    np.testing.assert_allclose(np.diag(grid)[:3], 3)
    assert np.all(np.asarray(shape) * 3 >= np.array([20, 24, 24]) + 12)


def test_scaling_is_robust_and_clips() -> None:
    values = np.linspace(1, 1001, 7 * 8 * 9).reshape(7, 8, 9).astype(np.float32)
    values[3, 4, 5] = 1e9
    inside = np.ones(values.shape, bool)
    inside[0] = False
    volume, (low, high) = scale_intensities(values, inside, (0.5, 99.5))
    assert volume.dtype == np.uint8
    assert (volume[0] == 0).all()
    assert volume[1:].min() == 1
    assert volume[3, 4, 5] == 255
    assert high < 1010
    assert low < high
    back = (volume[4, 4, 4] - 1) / 254 * (high - low) + low
    assert back == pytest.approx(values[4, 4, 4], abs=5)
    with pytest.raises(ScanError, match="contrast"):
        scale_intensities(np.ones((7, 8, 9), np.float32), inside, (0.5, 99.5))


def _ball(radius: float, shape: tuple[int, int, int] = (60, 64, 62)) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - 30
    return np.linalg.norm(index * 3.0, axis=-1) < radius


def test_stripped_rule_by_volume_and_exact_background() -> None:
    rng = np.random.default_rng(5)
    noise = rng.uniform(1, 5, (60, 64, 62)).astype(np.float32)
    brain, head = _ball(70), _ball(88)
    mask = stripped_mask(np.where(brain, noise, 0), 0.027)
    assert mask is not None
    assert mask.sum() == brain.sum()
    assert stripped_mask(np.where(head, noise, 0), 0.027) is None
    assert stripped_mask(np.where(brain, 100 + noise, noise), 0.027) is None


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({}, "pass", ""),
        ({"brain_ml": 500.0}, "fail", "500 ml"),
        ({"brain_ml": 900.0}, "warn", "900 ml"),
        ({"ncc": 0.1}, "fail", "correlation"),
        ({"ncc": 0.3}, "warn", "correlation"),
        ({"dice": 0.7}, "fail", "overlap"),
        ({"coverage": 0.9}, "warn", "field of view"),
        ({"scaling": 3.0}, "warn", "scaled by"),
        ({"turned": 60.0}, "warn", "turned by 60 degrees"),
    ],
)
def test_verdict(change: dict[str, float], status: str, word: str) -> None:
    verdict = assess_qc(GOOD | change, (), QcParams(), rigid=False)
    assert verdict.status == status
    assert word in "; ".join(verdict.reasons)


@pytest.mark.parametrize("angles", [(0, 0), (60, 20), (180, 0)])
def test_turned_is_the_angle_whatever_the_scaling(angles: tuple[float, float]) -> None:
    rotation = Rotation.from_euler("xz", angles, degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.2, 1.1, 1.3]) @ rotation.as_matrix()
    expected = np.rad2deg(rotation.magnitude())
    assert _turned(affine) == pytest.approx(expected, abs=6)
    affine[:3, :3] = 1.2 * rotation.as_matrix()
    assert _turned(affine) == pytest.approx(expected, abs=1e-4)


def test_notes_warn_and_rigid_ignores_scaling() -> None:
    assert assess_qc(GOOD, ("odd header",), QcParams(), rigid=False).status == "warn"
    assert assess_qc(GOOD | {"scaling": 3.0}, (), QcParams(), rigid=True).status == "pass"
