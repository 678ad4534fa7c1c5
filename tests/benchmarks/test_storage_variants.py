"""One head stored in many ways reaches the first step that computes as the same head."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.studies.storage_variants import DISGUISES, agreement
from pipeline.imaging.preprocess_scan import _Head, _load_head
from schemas.params import PreprocessParams
from tests.support.imaging_fixtures import save
from tests.support.real_data import real_t1w

RESAMPLED = {"oblique by 25 degrees", "turned by 60 degrees, header silent"}
"""Change voxels as well; the whole chain judges them."""


def load(path: Path) -> _Head:
    return _load_head(path, PreprocessParams())


def assert_same_voxels_everywhere(source: Path, tmp_path: Path, names: list[str]) -> None:
    image, truth = nib.load(source), load(source)
    for name in names:
        DISGUISES[name](image, tmp_path / "a.nii")
        other = load(tmp_path / "a.nii")
        assert other.notes == truth.notes, name
        # Padding gives the box a margin that the head alone has no room for.
        shape = np.minimum(truth.data.shape, other.data.shape)
        assert np.abs(np.subtract(truth.data.shape, other.data.shape)).max() <= 2, name
        start = np.rint(np.linalg.inv(truth.affine) @ other.affine[:, 3])[:3].astype(int)
        assert np.abs(start).max() <= 1, name
        own = tuple(slice(max(0, s), max(0, s) + n - 1) for s, n in zip(start, shape, strict=True))
        its = tuple(
            slice(max(0, -s), max(0, -s) + n - 1) for s, n in zip(start, shape, strict=True)
        )
        one = truth.data[own] / truth.data.max()
        two = other.data[its] / other.data.max()
        assert np.abs(one - two).max() < 3e-3, name


def test_a_small_head_is_one_head_in_any_disguise(tmp_path: Path) -> None:
    names = [name for name in DISGUISES if name not in RESAMPLED]
    assert_same_voxels_everywhere(save(tmp_path / "t.nii"), tmp_path, names)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DISGUISES) - RESAMPLED))
def test_a_real_head_is_one_head_in_any_disguise(name: str, tmp_path: Path) -> None:
    head = real_t1w() / "sub-d11x01" / "anat" / "sub-d11x01_T1w.nii.gz"
    assert_same_voxels_everywhere(head, tmp_path, [name])


def test_agreement_of_a_volume_with_itself_and_with_noise() -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 255, (7, 8, 9)).astype(np.uint8)
    assert agreement(volume, volume) == pytest.approx((1, 1))
    assert abs(agreement(volume, rng.permuted(volume))[0]) < 0.2
