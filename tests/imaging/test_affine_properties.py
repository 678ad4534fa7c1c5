"""Affines there and back: no voxel leaves its place in the world, however an image is stored."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.imaging.geometry import sample, to_ras

SHAPE = (5, 6, 7)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
zooms = st.tuples(*[st.floats(0.5, 3)] * 3)
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)
offsets = st.tuples(*[st.floats(-100, 100)] * 3)


@st.composite
def affines(draw) -> np.ndarray:
    """Draw an affine without shear, in any orientation, right- or left-handed."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(np.multiply(draw(zooms), draw(flips)))
    affine[:3, 3] = draw(offsets)
    return affine


@settings(max_examples=100)
@given(affine=affines())
def test_every_voxel_keeps_its_value_and_its_place_in_ras(affine):
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    ras, ras_affine = to_ras(data, affine)
    indices = np.indices(ras.shape).reshape(3, -1)
    world = ras_affine[:3, :3] @ indices + ras_affine[:3, 3:]
    back = np.linalg.inv(affine) @ np.vstack([world, np.ones(world.shape[1])])
    there = np.rint(back[:3]).astype(int)
    np.testing.assert_allclose(back[:3], there, atol=1e-6)
    np.testing.assert_array_equal(data[tuple(there)], ras.reshape(-1))


@settings(max_examples=50)
@given(affine=affines(), target=affines())
def test_a_linear_field_is_sampled_from_its_place_in_the_world(affine, target):
    """On a grid that lies inside the image, and of a field that is linear in the world."""
    shape = (41, 41, 41)
    affine[:3, 3] = -affine[:3, :3] @ [20, 20, 20]
    step = 0.1 * target[:3, :3]
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = step, -step @ [2, 2, 2]
    slope = np.array([1.0, -2.0, 3.0])
    indices = np.indices(shape).reshape(3, -1)
    field = (slope @ (affine[:3, :3] @ indices + affine[:3, 3:])).reshape(shape)
    sampled = sample(field.astype(np.float32), affine, grid, (5, 5, 5))
    small = np.indices((5, 5, 5)).reshape(3, -1)
    expected = (slope @ (grid[:3, :3] @ small + grid[:3, 3:])).reshape(5, 5, 5)
    np.testing.assert_allclose(sampled, expected, atol=1e-3)
