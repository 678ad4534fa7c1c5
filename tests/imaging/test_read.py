"""Reading: one head in many sound disguises is one head."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from pipeline.imaging.geometry import bounding_box, crop_affine, to_ras
from pipeline.imaging.header import nifti_geometry, zooms_of
from pipeline.imaging.read import Scan, read_scan
from tests.support.imaging_fixtures import SHAPE, ZOOMS, head_affine, head_array, patch, save

HEAD, AFFINE = head_array(), head_affine()
Maker = Callable[[Path], Path]


def _as(axes: str) -> Maker:
    """Store the head with other voxel axes and a header that says so."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes)))
    data = apply_orientation(HEAD, turn)
    affine = AFFINE @ inv_ornt_aff(turn, SHAPE)
    return lambda folder: save(folder / "a.nii.gz", np.ascontiguousarray(data), affine)


def _typed(dtype: str, slope: float = 1, inter: float = 0) -> Maker:
    def make(folder: Path) -> Path:
        data = ((HEAD - inter) / slope).astype(dtype)
        image = nib.Nifti1Image(data, AFFINE)
        image.header.set_slope_inter(slope, inter)
        path = folder / "a.nii"
        nib.save(image, path)
        # nibabel recomputes the scaling of floats: write it by hand.
        patch(path, 112, np.array([slope, inter], "<f4").tobytes())
        return path

    return make


def _nifti2(folder: Path) -> Path:
    nib.save(nib.Nifti2Image(HEAD, AFFINE), folder / "a.nii.gz")
    return folder / "a.nii.gz"


def _big_endian(folder: Path) -> Path:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(HEAD, AFFINE, header), folder / "a.nii")
    assert (folder / "a.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
    return folder / "a.nii"


def _offset(folder: Path) -> Path:
    return save(folder / "a.nii.gz", HEAD.astype(np.float64) + 5000)


def _mgz(folder: Path) -> Path:
    nib.save(nib.MGHImage(HEAD.astype(np.float32), AFFINE), folder / "a.mgz")
    return folder / "a.mgz"


def _pair(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(HEAD, AFFINE), folder / "a.img")
    return folder / "a.hdr"


def _metres(folder: Path) -> Path:
    affine = AFFINE.copy()
    affine[:3] /= 1000
    path = save(folder / "a.nii", affine=affine)
    return patch(path, 123, bytes([1]))


def _trailing_axis(folder: Path) -> Path:
    return save(folder / "a.nii.gz", HEAD[..., None])


def _padded(folder: Path) -> Path:
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3] @ [20, 20, 20]
    return save(folder / "a.nii.gz", np.pad(HEAD, 20), affine)


def _few_nan(folder: Path) -> Path:
    data = HEAD.astype(np.float32)
    data[0, 0, :5] = np.nan
    return save(folder / "a.nii", data)


def _nan_around(folder: Path) -> Path:
    pad = np.pad(HEAD.astype(np.float32) + 1, 20, constant_values=np.nan)
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3] @ [20, 20, 20]
    return save(folder / "a.nii", pad - 1, affine)


def _upper_case_pair(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(HEAD, AFFINE), folder / "a.img")
    (folder / "a.img").rename(folder / "A.IMG")
    return (folder / "a.hdr").rename(folder / "A.HDR")


def _negative_sizes(folder: Path) -> Path:
    image = nib.Nifti1Image(HEAD, None)
    image.set_qform(AFFINE, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "a.nii")
    return patch(folder / "a.nii", 80, np.full(3, -ZOOMS, "<f4").tobytes())


DISGUISES: dict[str, Maker] = {
    "nii": lambda folder: save(folder / "a.nii"),
    "LPS": _as("LPS"),
    "PSR": _as("PSR"),
    "IAL": _as("IAL"),
    "float64": _typed("float64"),
    "slope": _typed("int16", 0.5, -100),
    "uint16": _typed("uint16"),
    "NIfTI-2": _nifti2,
    "big-endian": _big_endian,
    "offset": _offset,
    "mgz": _mgz,
    "pair": _pair,
    "metres": _metres,
    "(x, y, z, 1)": _trailing_axis,
    "padding": _padded,
    "few NaN": _few_nan,
    "NaN around": _nan_around,
    "upper-case pair": _upper_case_pair,
    "negative voxel sizes": _negative_sizes,
}


def _canonical(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    data, affine = to_ras(scan.data, scan.affine)
    box = bounding_box(data > 0)
    return data[box], crop_affine(affine, box)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DISGUISES)
def test_every_disguise_reads_as_the_same_head(name: str, tmp_path: Path) -> None:
    truth, affine = _canonical(read_scan(save(tmp_path / "truth.nii"), max_bytes=10**8))
    (tmp_path / "other").mkdir()
    scan = read_scan(DISGUISES[name](tmp_path / "other"), max_bytes=10**8)
    data, other = _canonical(scan)
    # An offset moves the lowest intensity by less than the noise: shapes may differ by an edge.
    assert np.abs(np.subtract(data.shape, truth.shape)).max() <= 1
    if data.shape == truth.shape:
        assert np.corrcoef(data.ravel(), truth.ravel())[0, 1] > 0.999
        np.testing.assert_allclose(other, affine, atol=1e-4)


def test_spikes_are_clipped_and_noted(tmp_path: Path) -> None:
    data = HEAD.astype(np.float32)
    data[10, 10, 10] = 1e30
    scan = read_scan(save(tmp_path / "a.nii", data), max_bytes=10**8)
    assert scan.data.max() < 3500
    assert any("clipped" in note for note in scan.notes)


def test_no_orientation_is_noted(tmp_path: Path) -> None:
    path = patch(save(tmp_path / "a.nii"), 252, bytes(4))
    scan = read_scan(path, max_bytes=10**8)
    assert any("orientation unknown" in note for note in scan.notes)


def test_flipped_qform_is_noted() -> None:
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_sform(AFFINE, 1)
    header.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    geometry = nifti_geometry(header)
    np.testing.assert_allclose(geometry.affine, AFFINE)
    assert "check left and right" in geometry.notes[0]


def test_bad_sform_gives_way_to_qform() -> None:
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_qform(AFFINE, 1)
    header.set_sform(np.diag([0, 6, 6, 1.0]), 1)
    geometry = nifti_geometry(header)
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=1e-4)
    assert "singular" in geometry.notes[0]


def test_to_ras_keeps_world_positions() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(7, 8, 9)).astype(np.float32)
    affine = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, -7], [0, -3.0, 0, 2], [0, 0, 0, 1]])
    ras, turned = to_ras(data, affine)
    assert nib.aff2axcodes(turned) == ("R", "A", "S")
    voxel = np.argwhere(ras == data[3, 4, 5])[0]
    np.testing.assert_allclose(turned @ [*voxel, 1], affine @ [3, 4, 5, 1])
    np.testing.assert_allclose(np.sort(zooms_of(turned)), [1.5, 2, 3])
