"""The whole chain on a phantom head: disguises, poses, registrations. Slow."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.header import shear_of
from pipeline.imaging.intensities import STANDARD, restore, tissue_levels
from pipeline.imaging.preprocess_scan import PreprocessedScan, preprocess_scan
from pipeline.imaging.turns import quarter_turns
from pipeline.phantom.cohort import make_phantom_cohort
from pipeline.runtime.devices import torch_threads
from schemas.errors import ScanError
from schemas.params import PhantomParams, PreprocessParams
from tests.support.made_once import MadeOnce

PARAMS = PreprocessParams()


@pytest.fixture(scope="module")
def head(made_once: MadeOnce) -> Path:
    params = PhantomParams(subjects=1, zooms=2.0, multi_visit_share=0)
    cohort = made_once("head", lambda root: make_phantom_cohort(root / "bids", params, workers=1))
    return sorted(cohort.glob("sub-*/**/*_T1w.nii.gz"))[0]


@pytest.fixture(scope="module")
def truth(head: Path, made_once: MadeOnce) -> PreprocessedScan:
    scan = made_once("truth", lambda _: preprocess_scan(head, PARAMS))
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    return scan


@pytest.fixture(scope="module")
def stripped(head: Path, made_once: MadeOnce) -> tuple[Path, PreprocessedScan]:
    """The head as a source that removed the skull gives it, and what becomes of it."""
    return made_once("stripped", lambda folder: _stripped(head, folder / "brain.nii"))


def _stripped(head: Path, out: Path) -> tuple[Path, PreprocessedScan]:
    from pipeline.imaging.brain import deepbet_mask
    from pipeline.imaging.geometry import to_ras

    image = nib.load(head)
    data, affine = to_ras(image.get_fdata(dtype=np.float32), image.affine)
    nib.save(nib.Nifti1Image((data * deepbet_mask(data)).astype(np.int16), affine), out)
    return out, preprocess_scan(out, PARAMS)


def brain_correlation(one: PreprocessedScan, other: PreprocessedScan) -> float:
    """Return r over the voxels both call brain, once their masks agree."""
    a, b = one.volume > 0, other.volume > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.96
    inside = a & b
    return float(np.corrcoef(one.volume[inside], other.volume[inside])[0, 1])


def _turned(head: Path, out: Path, degrees: float, *, in_header: bool) -> Path:
    """Resample a head turned about x and z; with the header saying so, or keeping silent."""
    image = nib.load(head)
    data, affine = image.get_fdata(dtype=np.float32), image.affine
    turn = Rotation.from_euler("xz", [degrees, degrees / 3], degrees=True).as_matrix()
    shape = np.array(data.shape) + 24
    centre = affine @ [*(np.asarray(data.shape) - 1) / 2, 1]
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    oblique = from_matvec(turn @ np.diag(zooms), [0, 0, 0])
    oblique[:3, 3] = centre[:3] - oblique[:3, :3] @ ((shape - 1) / 2)
    to_voxel = np.linalg.inv(affine) @ oblique
    turned = affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=tuple(shape), order=1
    )
    said = oblique if in_header else from_matvec(np.diag(zooms), -zooms * (shape - 1) / 2)
    nib.save(nib.Nifti1Image(turned.astype(np.int16), said), out)
    return out


def _padded(head: Path, out: Path) -> Path:
    image = nib.load(head)
    pad = np.round(120 / np.linalg.norm(image.affine[:3, :3], axis=0)).astype(int)
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ pad
    data = np.pad(np.asarray(image.dataobj), [(n, n) for n in pad])
    nib.save(nib.Nifti1Image(data, affine), out)
    return out


def _flipped_offset_floats(head: Path, out: Path) -> Path:
    """Pad, reorder and turn the axes around, and store as floats of another scale."""
    image = nib.load(_padded(head, out.with_name("padded.nii")))
    turn = nib.orientations.axcodes2ornt(("P", "S", "R"))
    now = nib.io_orientation(image.affine)
    moved = image.as_reoriented(nib.orientations.ornt_transform(now, turn))
    assert nib.aff2axcodes(moved.affine) == ("P", "S", "R")
    nib.save(nib.Nifti2Image(moved.get_fdata() * 3.7 + 1000, moved.affine), out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "disguise",
    [_flipped_offset_floats, lambda h, o: _turned(h, o, 12, in_header=True)],
    ids=["padding, axes, NIfTI-2, float64 offset", "oblique 12"],
)
def test_disguises_agree(
    head: Path,
    truth: PreprocessedScan,
    tmp_path: Path,
    disguise: Callable[[Path, Path], Path],
) -> None:
    scan = preprocess_scan(disguise(head, tmp_path / "a.nii"), PARAMS)
    assert brain_correlation(truth, scan) >= 0.98


@pytest.mark.slow
def test_head_turned_by_60_degrees_registers(
    head: Path, truth: PreprocessedScan, tmp_path: Path
) -> None:
    scan = preprocess_scan(_turned(head, tmp_path / "a.nii", 60, in_header=False), PARAMS)
    assert scan.qc["strip_method"] == "deepbet, upright"
    assert scan.qc["status"] == "warn"
    assert 45 < scan.qc["turned"] < 80
    assert scan.qc["ncc"] > 0.9 * truth.qc["ncc"]
    assert brain_correlation(truth, scan) >= 0.97


def _sheared(head: Path, out: Path, shear: float) -> Path:
    """Sample a head along axes that are not square, with a header that says so."""
    image = nib.load(head)
    data, affine = image.get_fdata(dtype=np.float32), image.affine
    shape = tuple(int(1.15 * n) for n in data.shape)
    lean = np.eye(3)
    lean[0, 1], lean[1, 2] = shear, -shear / 2
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    said = from_matvec(affine[:3, :3] / zooms @ lean @ np.diag(zooms), [0, 0, 0])
    centre = affine @ [*(np.asarray(data.shape) - 1) / 2, 1]
    said[:3, 3] = centre[:3] - said[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    to_voxel = np.linalg.inv(affine) @ said
    moved = affine_transform(data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=shape, order=1)
    image = nib.Nifti1Image(moved.astype(np.int16), None)
    image.set_sform(said, 1)
    nib.save(image, out)
    return out


def _mean_distance(one: PreprocessedScan, other: PreprocessedScan) -> float:
    """Return how far two transforms put the same points of the brain apart (mm)."""
    grid = grid_affine(PARAMS.grid)
    mni = np.argwhere(one.volume > 0) @ grid[:3, :3].T + grid[:3, 3]
    back = other.native_to_mni @ np.linalg.inv(one.native_to_mni)
    return float(np.linalg.norm(mni @ back[:3, :3].T + back[:3, 3] - mni, axis=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("shear", [0.06, 0.15])
def test_a_sheared_header_puts_no_scan_elsewhere(
    head: Path, truth: PreprocessedScan, tmp_path: Path, shear: float
) -> None:
    """At 0.06 it lay 4 mm off, at 0.15 10 mm, and passed."""
    scan = preprocess_scan(_sheared(head, tmp_path / "a.nii", shear), PARAMS)
    assert _mean_distance(truth, scan) < 1
    assert brain_correlation(truth, scan) >= 0.97
    # The voxels were interpolated once more; by 0.0202 on a processor with AMX.
    assert scan.qc["ncc"] > truth.qc["ncc"] - 0.03
    assert f"header sheared by {shear:.2g}" in scan.qc["reasons"]
    assert shear_of(scan.native_affine) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [1, 12], ids=["upside down", "axes permuted, 120 degrees"])
def test_a_header_with_mixed_up_axes_ends_in_the_right_pose(
    head: Path, truth: PreprocessedScan, tmp_path: Path, wrong: int
) -> None:
    image = nib.load(head)
    turn = from_matvec(quarter_turns()[wrong], [0, 0, 0])
    wrongly = nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)
    nib.save(wrongly, tmp_path / "a.nii")
    scan = preprocess_scan(tmp_path / "a.nii", PARAMS)
    assert brain_correlation(truth, scan) >= 0.97
    assert scan.qc["status"] == "warn"
    assert scan.qc["turned"] > 90


@pytest.mark.slow
def test_a_head_of_another_contrast_fails_without_a_second_opinion(
    stripped: tuple[Path, PreprocessedScan], tmp_path: Path
) -> None:
    image = nib.load(stripped[0])
    data = np.asarray(image.dataobj).astype(np.float32)
    top = np.percentile(data[data > 0], 99.5)
    inverted = np.where(data > 0, np.clip(1.1 * top - data, 1, None), 0)
    nib.save(nib.Nifti1Image(inverted.astype(np.int16), image.affine), tmp_path / "a.nii")
    scan = preprocess_scan(tmp_path / "a.nii", PARAMS)
    assert scan.qc["status"] == "fail"
    assert "a T2w, FLAIR, T1 map or inversion image?" in scan.qc["reasons"]
    assert scan.qc["strip_method"] == "already stripped"
    assert sum(scan.timings.values()) < 3 * sum(stripped[1].timings.values())


@pytest.mark.slow
def test_stripped_input_is_noticed_and_agrees(
    truth: PreprocessedScan, stripped: tuple[Path, PreprocessedScan]
) -> None:
    scan = stripped[1]
    assert scan.qc["strip_method"] == "already stripped"
    assert brain_correlation(truth, scan) >= 0.98


@pytest.mark.slow
def test_stripping_leaves_no_threads_behind_and_takes_none_from_before() -> None:
    """What runs next in the process computes with as many threads as it would have."""
    from pipeline.imaging.brain import deepbet_mask
    from pipeline.imaging.deepbet_network import load_deepbet

    data = np.zeros((60, 72, 60), np.float32)
    data[10:50, 12:60, 10:50] = np.random.default_rng(0).uniform(50, 100, (40, 48, 40))
    load_deepbet.cache_clear()
    network, used = load_deepbet("cpu").run_model, []
    with pytest.MonkeyPatch.context() as patch, torch_threads(2):
        patch.setattr(
            load_deepbet("cpu"),
            "run_model",
            lambda data: used.append(torch.get_num_threads()) or network(data),
        )
        with contextlib.suppress(ScanError):
            deepbet_mask(data)
        assert torch.get_num_threads() == 2
    assert used == [1]


@pytest.mark.slow
def test_landmarks_move_grey_and_white_matter_and_nothing_else(
    stripped: tuple[Path, PreprocessedScan],
) -> None:
    path, usual = stripped
    scan = preprocess_scan(path, PARAMS.model_copy(update={"intensity": "landmarks"}))
    assert usual.tissue_levels is None
    assert scan.tissue_levels is not None
    np.testing.assert_array_equal(scan.volume > 0, usual.volume > 0)
    inside = usual.volume > 0
    own = tissue_levels((scan.volume - 1.0) / 254, inside, grid_affine(PARAMS.grid))
    np.testing.assert_allclose(own, STANDARD, atol=0.005)
    back = restore((scan.volume[inside] - 1.0) / 254, scan.tissue_levels)
    np.testing.assert_allclose(back, (usual.volume[inside] - 1.0) / 254, atol=0.01)
    assert scan.intensity_range == usual.intensity_range


def test_rigid_keeps_the_size_of_the_head(stripped: tuple[Path, PreprocessedScan]) -> None:
    scan = preprocess_scan(stripped[0], PreprocessParams(registration="rigid"))
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    assert scan.qc["scaling"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_syn_fits_better_than_affine(stripped: tuple[Path, PreprocessedScan]) -> None:
    scan = preprocess_scan(stripped[0], PreprocessParams(registration="syn"))
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    assert scan.qc["ncc"] > stripped[1].qc["ncc"] + 0.03
