"""docs/preprocessing.md: its snippet works, its thresholds are the defaults."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.imaging.geometry import resample_masked
from pipeline.imaging.qc import NUMBERS
from pipeline.stores.volumes import VolumeRow, write_volumes
from schemas.params import QcParams
from tests.support.paths import ROOT
from tests.support.volumes import SHAPE, volume_attributes

TEXT = (ROOT / "docs" / "preprocessing.md").read_text()


def test_snippet_brings_a_volume_back_to_native_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = gaussian_filter(np.random.default_rng(0).normal(size=(19, 27, 23)), 2)
    native = (native - native.min()) / np.ptp(native)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    native_affine = np.diag([3.0, 3, 3, 1])
    native_affine[:3, :3] = turn * 3
    native_affine[:3, 3] = 75, -3, 2
    native_to_mni = np.eye(4)
    native_to_mni[:3, 3] = -6, 5, -4
    mask = np.zeros(native.shape, bool)
    mask[4:-4, 9:-5, 4:-4] = True
    attributes = volume_attributes(["sub-001_ses-M12"])
    grid = np.array(attributes.grid.affine)
    volume, _ = resample_masked(
        native.astype(np.float32), mask, native_affine, np.linalg.inv(native_to_mni) @ grid, SHAPE
    )
    row = VolumeRow(
        volume=np.rint(254 * volume).astype(np.uint8),
        native_to_mni=native_to_mni,
        native_affine=native_affine,
        native_shape=np.array(native.shape, np.int32),
        intensity_range=np.array([0, 1.0]),
    )
    write_volumes(tmp_path / "data" / "volumes.zarr", attributes, iter([row]))
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert snippet is not None
    exec(snippet[1], {})
    back = nib.load(tmp_path / "sub-001_ses-M12_native.nii.gz")
    assert back.shape == native.shape
    np.testing.assert_allclose(back.affine, native_affine)
    core = np.zeros(native.shape, bool)
    core[6:-6, 11:-7, 6:-6] = True
    # Half of the brain may lie outside the small grid: what is there must agree.
    there = core & (back.get_fdata() > 0)
    assert there.sum() > 200
    assert np.corrcoef(back.get_fdata()[there], native[there])[0, 1] > 0.95


def test_thresholds_in_the_text_are_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]+\|([^|]+\|[^|]+)\|$", TEXT, re.MULTILINE))
    assert set(NUMBERS) <= set(rows)
    for name in NUMBERS:
        expected = [
            float(bound)
            for kind in ("warn", "fail")
            for bound in np.atleast_1d(getattr(QcParams(), f"{name}_{kind}", []))
        ]
        assert [float(n) for n in re.findall(r"\d+(?:\.\d+)?", rows[name])] == expected, name
