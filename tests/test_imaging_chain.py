"""The whole chain on a phantom head: disguises, poses, determinism, killed workers. Slow."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import pytest
from nibabel.affines import from_matvec
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from pipeline.cohort.ingest import build_manifest
from pipeline.cohort.manifest import write_manifest
from pipeline.cohort.phantom.cohort import make_phantom_cohort
from pipeline.imaging.chain import PreprocessedScan, preprocess_scan
from schemas.params import CohortParams, PhantomParams, PreprocessParams

pytestmark = pytest.mark.slow

PARAMS = PreprocessParams()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "bids"
    make_phantom_cohort(root, PhantomParams(subjects=4, zooms=2.0, multi_visit_share=0), workers=1)
    return root


@pytest.fixture(scope="module")
def head(cohort: Path) -> Path:
    return sorted(cohort.glob("sub-*/**/*_T1w.nii.gz"))[0]


@pytest.fixture(scope="module")
def truth(head: Path) -> PreprocessedScan:
    scan = preprocess_scan(head, PARAMS)
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    return scan


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


def _flipped_axes(head: Path, out: Path) -> Path:
    image = nib.load(head)
    turn = nib.orientations.axcodes2ornt(("P", "S", "R"))
    now = nib.io_orientation(image.affine)
    moved = image.as_reoriented(nib.orientations.ornt_transform(now, turn))
    assert nib.aff2axcodes(moved.affine) == ("P", "S", "R")
    nib.save(nib.Nifti2Image(np.asarray(moved.dataobj), moved.affine), out)
    return out


def _offset_floats(head: Path, out: Path) -> Path:
    image = nib.load(head)
    nib.save(nib.Nifti1Image(image.get_fdata() * 3.7 + 1000, image.affine), out)
    return out


@pytest.mark.parametrize(
    "disguise",
    [_padded, _flipped_axes, _offset_floats, lambda h, o: _turned(h, o, 25, in_header=True)],
    ids=["padding", "axes and NIfTI-2", "float64 offset", "oblique 25"],
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
    assert scan.qc["ncc"] > 0.9 * truth.qc["ncc"]
    assert brain_correlation(truth, scan) >= 0.97


def test_stripped_input_is_noticed_and_agrees(
    head: Path, truth: PreprocessedScan, tmp_path: Path
) -> None:
    from pipeline.imaging.brain import deepbet_mask
    from pipeline.imaging.geometry import to_ras

    image = nib.load(head)
    data, affine = to_ras(image.get_fdata(dtype=np.float32), image.affine)
    nib.save(
        nib.Nifti1Image((data * deepbet_mask(data)).astype(np.int16), affine), tmp_path / "a.nii"
    )
    scan = preprocess_scan(tmp_path / "a.nii", PARAMS)
    assert scan.qc["strip_method"] == "already stripped"
    assert brain_correlation(truth, scan) >= 0.98


@pytest.mark.parametrize("kind", ["rigid", "syn"])
def test_other_registrations_pass(head: Path, kind: str) -> None:
    params = PreprocessParams.model_validate({"registration": kind})
    scan = preprocess_scan(head, params)
    assert scan.qc["status"] == "pass", scan.qc["reasons"]
    if kind == "rigid":
        assert scan.qc["scaling"] == pytest.approx(1, abs=1e-4)


def test_syn_fits_better_than_affine(head: Path, truth: PreprocessedScan) -> None:
    scan = preprocess_scan(head, PreprocessParams(registration="syn"))
    assert scan.qc["ncc"] > truth.qc["ncc"] + 0.03


RUN = """
import sys
from pathlib import Path
import pandas as pd
from pipeline.cohort.manifest import read_manifest
from pipeline.precompute.preprocess import preprocess_cohort
from schemas.params import GridParams, PreprocessParams
if __name__ == "__main__":
    manifest, out = Path(sys.argv[1]), Path(sys.argv[2])
    params = PreprocessParams(grid=GridParams(shape=(28, 32, 28), zooms=6), bias_field=False)
    print(preprocess_cohort(
        read_manifest(manifest), params, manifest_dir=manifest.parent, out=out,
        qc_csv=out.with_suffix(".qc.csv"), quarantine_csv=out.with_suffix(".q.csv"),
        prior_quarantine=pd.DataFrame(), workers=int(sys.argv[3]),
    ))
"""


def _start(cohort: Path, out: Path, workers: int) -> "subprocess.Popen[bytes]":
    script = out.parent / "run.py"
    script.write_text(RUN)
    manifest = cohort.parent / "manifest.csv"
    if not manifest.is_file():
        table, _ = build_manifest(CohortParams(source="bids"), input_path=cohort)
        write_manifest(table, manifest)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(script), str(manifest), str(out), str(workers)]
    return subprocess.Popen(command, env=env, start_new_session=True)


def _digest(store: Path) -> str:
    files = sorted(p for p in store.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("calm") / "v.zarr"
    assert _start(cohort, out, 1).wait(600) == 0
    return _digest(out)


def test_a_killed_worker_changes_nothing(cohort: Path, undisturbed: str, tmp_path: Path) -> None:
    out = tmp_path / "v.zarr"
    process = _start(cohort, out, 2)
    victim = _worker_of(process.pid)
    victim.send_signal(signal.SIGKILL)
    assert process.wait(600) == 0
    assert _digest(out) == undisturbed
    assert len(pd.read_csv(out.with_suffix(".q.csv"))) == 0


def _worker_of(pid: int) -> psutil.Process:
    """Wait for a worker process that is at work, and return it."""
    for _ in range(600):
        for child in psutil.Process(pid).children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 5:
                return child
        time.sleep(0.1)
    raise AssertionError("no worker came up")


def test_a_killed_run_goes_on_where_it_was(cohort: Path, undisturbed: str, tmp_path: Path) -> None:
    out = tmp_path / "v.zarr"
    for seconds in (4, 9, 14):
        process = _start(cohort, out, 1)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    assert _start(cohort, out, 1).wait(600) == 0
    assert _digest(out) == undisturbed
