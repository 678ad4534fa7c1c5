"""Sheared, scaled and co-registered headers, other units, thick slices: closed forms."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from pipeline.imaging.ants_setup import ants_image
from pipeline.imaging.geometry import straight_grid, straighten
from pipeline.imaging.header import SHEAR_TOLERANCE, affine_fault, shear_of, zooms_of
from pipeline.imaging.read import Scan, read_scan
from pipeline.imaging.write import write_nifti
from schemas.errors import ScanError
from tests.support.imaging_fixtures import SHAPE, ZOOMS, head_affine, head_array, save

SHEARS = (0.03, 0.06, 0.10, 0.15)


def read(path: Path) -> Scan:
    return read_scan(path, max_bytes=10**9)


def sheared_affine(shear: float, zooms: tuple[float, float, float] = (2, 2.5, 3)) -> np.ndarray:
    affine = np.diag([*zooms, 1.0])
    affine[0, 1] = shear * zooms[1]
    affine[1, 2] = -shear * zooms[2] / 2
    affine[:3, 3] = [-80, -95, -70]
    return affine


def blobs(affine: np.ndarray, shape: tuple[int, int, int], points: np.ndarray) -> np.ndarray:
    """Return one smooth blob at each world point, sampled on a grid of any axes."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    distances = [np.linalg.norm(world - point, axis=-1) for point in points]
    return np.sum([1000 * np.exp(-((d / 7) ** 2)) for d in distances], axis=0).astype(np.float32)


@pytest.mark.parametrize(
    "shear", [*(pytest.param(s, marks=pytest.mark.slow) for s in SHEARS[:-1]), SHEARS[-1]]
)
def test_a_sheared_scan_keeps_its_places_on_axes_at_right_angles(shear: float) -> None:
    affine, shape = sheared_affine(shear), (80, 76, 54)
    points = np.array([[-30, -40, -20], [25, 30, 15], [0, -5, 40]], dtype=float)
    for point in points:
        straight, grid = straighten(blobs(affine, shape, point[None]), affine)
        assert shear_of(grid) < 1e-12
        np.testing.assert_allclose(zooms_of(grid), [2, 2.5, 3], rtol=0.02)
        found = grid[:3, :3] @ center_of_mass(straight) + grid[:3, 3]
        np.testing.assert_allclose(found, point, atol=0.1)
        assert straight.max() == pytest.approx(1000, rel=0.1)


def test_the_straight_grid_holds_every_corner_of_the_sheared_one() -> None:
    affine, shape = sheared_affine(0.15), (80, 76, 54)
    grid, size = straight_grid(affine, shape)
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    inside = (world - grid[:3, 3]) @ np.linalg.inv(grid[:3, :3]).T
    assert inside.min() > -1e-9
    assert (inside <= np.asarray(size) - 1 + 1e-6).all()


def test_axes_that_rounding_left_a_little_off_are_not_resampled(tmp_path: Path) -> None:
    affine = head_affine()
    affine[0, 1] = 0.5 * SHEAR_TOLERANCE * ZOOMS
    scan = read(save(tmp_path / "a.nii", affine=affine))
    assert scan.data.shape == SHAPE
    assert not scan.notes
    np.testing.assert_array_equal(straight_grid(affine, SHAPE)[0], affine)


def test_a_sheared_header_is_told_and_resampled(tmp_path: Path) -> None:
    affine = head_affine()
    affine[0, 1] = 0.1 * ZOOMS
    scan = read(save(tmp_path / "a.nii", affine=affine))
    assert shear_of(scan.affine) < 1e-6
    assert scan.data.shape != SHAPE
    note = "header sheared by 0.1: resampled to axes at right angles"
    assert [n for n in scan.notes if "sheared" in n] == [note]


def test_a_stripped_brain_keeps_its_exact_background_when_straightened() -> None:
    data = np.zeros((40, 42, 38), np.float32)
    data[10:30, 10:32, 10:28] = np.random.default_rng(0).uniform(50, 100, (20, 22, 18))
    straight, _ = straighten(data, sheared_affine(0.1))
    assert (straight == 0).mean() > 0.75
    assert straight.min() >= 0
    assert straight.max() <= data.max()


def test_qform_and_sform_of_native_output_agree_for_a_sheared_scan(tmp_path: Path) -> None:
    affine = head_affine()
    affine[0, 1] = 0.12 * ZOOMS
    scan = read(save(tmp_path / "a.nii", affine=affine))
    write_nifti(tmp_path / "out.nii.gz", scan.data, scan.affine, code=1, made_by="test")
    image = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    np.testing.assert_allclose(image.get_sform(), scan.affine, atol=1e-4)


def test_ants_is_never_given_another_geometry_than_ours() -> None:
    with pytest.raises(ValueError, match="right angles"):
        ants_image(np.zeros((8, 8, 8), np.float32), sheared_affine(0.05))


def coregistered(tmp_path: Path, *, qform: bool) -> tuple[Path, np.ndarray]:
    """Return a file whose sform has twelve parameters, and the affine of the scanner."""
    scanner = head_affine()
    image = nib.Nifti1Image(head_array(), None)
    image.set_qform(scanner, 1 if qform else 0)
    twelve = np.array(
        [[0.85, 0.08, 0.02, 5], [-0.05, 0.9, 0.04, -8], [0.01, -0.06, 0.8, 3], [0, 0, 0, 1]]
    )
    image.set_sform(twelve @ scanner, 4)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii")
    return tmp_path / "a.nii", scanner


def test_an_sform_of_twelve_parameters_gives_way_to_the_scanners_millimetres(
    tmp_path: Path,
) -> None:
    path, scanner = coregistered(tmp_path, qform=True)
    scan = read(path)
    np.testing.assert_allclose(scan.affine, scanner, atol=1e-3)
    assert "co-registration of 12 parameters" in "; ".join(scan.notes)


def test_a_lone_sform_of_twelve_parameters_is_resampled_and_told(tmp_path: Path) -> None:
    scan = read(coregistered(tmp_path, qform=False)[0])
    assert shear_of(scan.affine) < 1e-6
    assert "header sheared by" in "; ".join(scan.notes)


def test_a_lone_sform_with_other_sizes_than_pixdim_is_told(tmp_path: Path) -> None:
    image = nib.Nifti1Image(head_array(), None)
    image.set_sform(head_affine(), 2)
    image.header["pixdim"][1:4] = 4
    nib.save(image, tmp_path / "a.nii")
    assert "pixdim 4x4x4 mm" in "; ".join(read(tmp_path / "a.nii").notes)


@pytest.mark.parametrize("code", ["micron", "mm", "unknown"])
def test_a_header_in_micrometres_is_converted_whatever_unit_it_names(
    tmp_path: Path, code: str
) -> None:
    affine = head_affine()
    affine[:3] *= 1000
    image = nib.Nifti1Image(head_array(), affine)
    image.header.set_xyzt_units(code)
    nib.save(image, tmp_path / "a.nii")
    scan = read(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine, head_affine(), rtol=1e-5)
    assert "micrometres: converted to mm" in scan.notes[0]


def test_thick_slices_are_read_with_a_warning(tmp_path: Path) -> None:
    affine = np.diag([6.0, 6.0, 8.0, 1.0])
    scan = read(save(tmp_path / "a.nii", affine=affine))
    assert scan.notes == ("slices of 8 mm: what lies between them is interpolated",)


@pytest.mark.parametrize(
    ("zooms", "remedy"),
    [
        ((1, 1, 12), "take another T1w"),
        ((8, 8, 8), "take another T1w"),
        ((0.1, 0.1, 0.1), "resample the scan"),
        ((1, 1, 100), "repair the header"),
        ((1, 1, 1e-3), "repair the header"),
    ],
)
def test_advice_on_voxel_sizes_fits_what_is_wrong(
    zooms: tuple[float, float, float], remedy: str
) -> None:
    fault = affine_fault(np.diag([*zooms, 1.0]))
    assert fault is not None
    assert remedy in fault.partition(";")[2].split(", or")[0]


def rounded(levels: int) -> np.ndarray:
    """Return a textured head of so many grey levels, as uint8."""
    rng = np.random.default_rng(1)
    head = head_array().astype(float) + np.where(head_array() > 100, rng.normal(0, 60, SHAPE), 0)
    share = np.clip(head / np.percentile(head, 99.9), 0, 1)
    return np.rint(share * (levels - 1)).astype(np.uint8)


@pytest.mark.parametrize("levels", [8, 12, 40])
def test_a_head_with_few_grey_levels_is_read_with_a_warning(tmp_path: Path, levels: int) -> None:
    scan = read(save(tmp_path / "a.nii", rounded(levels)))
    assert any("grey levels: rounded when it was stored?" in note for note in scan.notes)


def test_a_head_of_256_levels_needs_no_warning(tmp_path: Path) -> None:
    assert not read(save(tmp_path / "a.nii", rounded(256))).notes


@pytest.mark.parametrize(
    "labels", [2, 3, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (24, 100))]
)
def test_a_label_map_is_no_head_however_many_labels_it_has(tmp_path: Path, labels: int) -> None:
    rng = np.random.default_rng(2)
    seeds = rng.uniform(0, 1, (labels, 3)) * [50, 60, 54]
    index = np.stack(np.meshgrid(*map(np.arange, (50, 60, 54)), indexing="ij"), -1)
    nearest = np.argmin(np.linalg.norm(index[..., None, :] - seeds, axis=-1), axis=-1)
    inside = np.linalg.norm((index - [25, 30, 27]) / [25, 30, 27], axis=-1) < 0.9
    data = np.where(inside, 1 + nearest, 0).astype(np.int16)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    with pytest.raises(ScanError, match="mask or label map"):
        read(save(tmp_path / "a.nii", data, affine))
