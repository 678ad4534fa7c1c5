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

from pipeline.cohort.phantom.cohort import make_phantom_cohort
from pipeline.compute import torch_threads
from pipeline.imaging.chain import PreprocessedScan, preprocess_scan
from schemas.errors import ScanError
from schemas.params import PhantomParams, PreprocessParams
from tests.conftest import MadeOnce

pytestmark = pytest.mark.slow

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


def test_head_turned_by_60_degrees_registers(
    head: Path, truth: PreprocessedScan, tmp_path: Path
) -> None:
    scan = preprocess_scan(_turned(head, tmp_path / "a.nii", 60, in_header=False), PARAMS)
    assert scan.qc["strip_method"] == "deepbet, upright"
    assert scan.qc["status"] == "warn"
    assert 45 < scan.qc["turned"] < 80
    assert scan.qc["ncc"] > 0.9 * truth.qc["ncc"]
    assert brain_correlation(truth, scan) >= 0.97


def test_stripped_input_is_noticed_and_agrees(
    truth: PreprocessedScan, stripped: tuple[Path, PreprocessedScan]
) -> None:
    scan = stripped[1]
    assert scan.qc["strip_method"] == "already stripped"
    assert brain_correlation(truth, scan) >= 0.98


def test_stripping_leaves_no_threads_behind_and_takes_none_from_before() -> None:
    """What runs next in the process computes with as many threads as it would have."""
    from pipeline.imaging import brain

    data = np.zeros((60, 72, 60), np.float32)
    data[10:50, 12:60, 10:50] = np.random.default_rng(0).uniform(50, 100, (40, 48, 40))
    brain._deepbet.cache_clear()
    network, used = brain._deepbet().run_model, []
    with pytest.MonkeyPatch.context() as patch, torch_threads(2):
        patch.setattr(
            brain._deepbet(),
            "run_model",
            lambda data: used.append(torch.get_num_threads()) or network(data),
        )
        with contextlib.suppress(ScanError):
            brain.deepbet_mask(data)
        assert torch.get_num_threads() == 2
    assert used == [1]


def test_rigid_keeps_the_size_of_the_head(stripped: tuple[Path, PreprocessedScan]) -> None:
    scan = preprocess_scan(stripped[0], PreprocessParams(registration="rigid"))
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    assert scan.qc["scaling"] == pytest.approx(1, abs=1e-4)


def test_syn_fits_better_than_affine(stripped: tuple[Path, PreprocessedScan]) -> None:
    scan = preprocess_scan(stripped[0], PreprocessParams(registration="syn"))
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    assert scan.qc["ncc"] > stripped[1].qc["ncc"] + 0.03
