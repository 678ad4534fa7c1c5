"""DICOM series folders through a stand-in for dcm2niix, and the dry run."""

import gzip
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort import dicom
from pipeline.cohort.dicom import dicom_records, dicom_sessions, is_dicom, write_anonymous
from pipeline.cohort.ingest import build_manifest, detect_source
from schemas.errors import ContractError, ParamsError
from schemas.params import CohortParams
from stages.cli import app

FAKE = """#!{python} -ES
import os, struct, sys
arguments = sys.argv[1:]
assert arguments[arguments.index("-b") + 1] == "n"
out, folder = arguments[-2:]
with open({log!r}, "a") as log:
    print(os.path.basename(folder), file=log)
for name in sorted(os.listdir(folder)):
    with open(os.path.join(folder, name), "rb") as file:
        words = file.read()[132:].decode().split()  # SERIES NAME X Y Z
    if len(words) < 5:
        continue
    shape = [int(n) for n in words[2:]]
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<18s", header, 14, b"Known^Jane")
    struct.pack_into("<8h", header, 40, *([len(shape), *shape] + [1] * (7 - len(shape))))
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 384.0)
    struct.pack_into("<80s24s", header, 148, b"Time=103045", b"Mr Known")
    struct.pack_into("<4s", header, 344, b"n+1")
    extension = struct.pack("<4sii24s", bytes([1, 0, 0, 0]), 32, 6, b"Known^Jane")[:36]
    voxels = 1
    for n in shape:
        voxels *= n
    data = struct.pack("<%dh" % voxels, *range(voxels))
    with open(os.path.join(out, words[0] + "_" + words[1] + ".nii"), "wb") as file:
        file.write(bytes(header) + extension + data)
"""


def series(folder: Path, *lines: str) -> Path:
    """Write files with DICOM's mark; the rest tells the stand-in what to make of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, line in enumerate(lines):
        (folder / f"IM{i}").write_bytes(bytes(128) + b"DICM" + line.encode())
    return folder


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in on the PATH; returns the list of folders it was given."""
    tool = tmp_path / "bin" / "dcm2niix"
    tool.parent.mkdir()
    log = tmp_path / "calls"
    log.write_text("")
    tool.write_text(FAKE.format(python=sys.executable, log=str(log)))
    tool.chmod(0o755)
    monkeypatch.setattr(dicom.sys, "executable", str(tool))
    return log


def test_sessions_are_named_by_folders_alone(tmp_path: Path) -> None:
    series(tmp_path / "001" / "MPRAGE", "1 t1 9 9 9")
    series(tmp_path / "A_2" / "M06" / "T1", "1 t1 9 9 9")
    series(tmp_path / "A_2" / "M06" / "T2", "1 t2 9 9 9")
    series(tmp_path / "sub-3" / "ses-1", "1 t1 9 9 9")
    (tmp_path / "sub-3" / "notes.txt").write_text("no DICOM")
    series(tmp_path / "empty", *[])
    found = {s.scan_id: len(s.folders) for s in dicom_sessions(tmp_path)}
    assert found == {"sub-001": 1, "sub-A2_ses-M06": 2, "sub-3_ses-1": 1}


def test_what_is_dicom(tmp_path: Path) -> None:
    assert is_dicom(tmp_path / "a.DCM")
    series(tmp_path, "1")
    assert is_dicom((tmp_path / "IM0").rename(tmp_path / "1.2.840.7"))
    (tmp_path / "README").write_text("x" * 200)
    assert not is_dicom(tmp_path / "README")
    assert detect_source(tmp_path) == "dicom"
    (tmp_path / "a.nii.gz").write_bytes(b"1")
    assert detect_source(tmp_path) == "folder"


def test_one_t1w_a_session_and_the_rest_refused_with_reasons(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "001" / "all", "1 scout 9 8 9", "2 T2 12 13 14", "10 MPRAGE 9 10 11",
           "9 MPRAGE 9 10 11", "3 T1_map 9 9 9 4")  # fmt: skip
    series(root / "002" / "a", "1 x 9 9 9", "2 y 9 9 9")
    series(root / "003" / "a", "1 anything 9 9 9")
    series(root / "004" / "a", "no picture")
    (root / "participants.tsv").write_text("participant_id\tage\n001\t70\n003\t71\n")
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-001", "sub-003"]
    assert list(manifest["age_years"]) == [70, 71]
    assert nib.load(manifest["path"][0]).shape == (9, 10, 11)
    assert "9_MPRAGE taken, not ['10_MPRAGE', '1_scout', '2_T2']" in caplog.text
    reasons = refused.set_index("scan_id")["reason"]
    assert "none has T1 in its series description" in reasons["sub-002"]
    assert "no 3D volume" in reasons["sub-004"]
    assert sorted(p.name for p in cache.glob("*.gz")) == ["sub-001.nii.gz", "sub-003.nii.gz"]


def test_second_run_converts_what_changed_alone(log: Path, tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1", "1 t1 9 8 7", "2 t1 8 8 8")
    series(root / "2", "1 t1 9 8 7")
    dicom_records(root, cache)
    before = (cache / "sub-1.nii.gz").read_bytes()
    assert sorted(log.read_text().split()) == ["1", "2"]
    series(root / "2", "1 t1 9 8 10")
    dicom_records(root, cache)
    assert sorted(log.read_text().split()) == ["1", "2", "2"]
    assert nib.load(cache / "sub-2.nii.gz").shape == (9, 8, 10)
    assert (cache / "sub-1.nii.gz").read_bytes() == before


def test_nothing_personal_is_kept(log: Path, tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1", "1 t1 9 8 10")
    dicom_records(root, cache)
    content = gzip.decompress((cache / "sub-1.nii.gz").read_bytes())
    assert b"Known" not in content
    assert b"Time=" not in content
    assert sorted(p.name for p in cache.iterdir()) == ["sub-1.nii.gz", "sub-1.source"]
    np.testing.assert_array_equal(
        nib.load(cache / "sub-1.nii.gz").dataobj, np.arange(720).reshape(9, 8, 10, order="F")
    )


def test_anonymous_keeps_scaling_and_geometry(tmp_path: Path) -> None:
    affine = np.diag([1.5, 2, 3, 1.0])
    affine[:3, 3] = 4, 5, 6
    data = np.random.default_rng(0).normal(size=(7, 8, 9))
    image = nib.Nifti1Image(data, affine)
    image.set_data_dtype(np.int16)
    image.header["descrip"] = b"secret"
    nib.save(image, tmp_path / "a.nii")
    write_anonymous(tmp_path / "a.nii", tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(back.get_fdata(), nib.load(tmp_path / "a.nii").get_fdata())
    np.testing.assert_array_equal(back.affine, affine)
    assert bytes(back.header["descrip"].item()) == b""


def test_missing_converter_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(dicom.sys, "executable", str(tmp_path / "python"))
    series(tmp_path / "d" / "1", "1 t1 9 9 9")
    with pytest.raises(ContractError, match=r"not installed; run pip install .*\[dicom\]") as error:
        dicom_records(tmp_path / "d", tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


def cohort(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["cohort", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_dry_run_shows_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.nii").write_text("a")
    (tmp_path / "table.csv").write_text(
        "ID,path,AGE,DX,site\n001,1.nii,70,AD,007\n002,2.nii,71,CN,008\n"
    )
    out = tmp_path / "out"
    options = ("--input", tmp_path / "table.csv", "--out", out)
    columns = ("--columns", "subject_id=ID,age=AGE,diagnosis=DX")
    text = cohort(*options, *columns, "--dry-run")
    assert "1 scan of 1 subject would be taken" in text
    assert "sub-001" in text
    assert "age_years (100%)" in text
    assert "site (100%, kept under its own name)" in text
    assert "2.nii: file not found" in text
    assert "sub-001: file holds 1 bytes, too few for a NIfTI header" in text
    assert not out.exists()
    cohort(*options, *columns)
    row = pd.read_csv(out / "manifest.csv", dtype=str).iloc[0]
    assert (row["subject_id"], row["age_years"], row["diagnosis"], row["site"]) == (
        "sub-001", "70.0", "AD", "007",
    )  # fmt: skip
    with pytest.raises(ParamsError, match="name=COLUMN"):
        cohort(*options, "--columns", "age")
    with pytest.raises(ContractError, match="'NONE'"):
        cohort(*options, "--columns", "subject_id=ID,age=NONE")


def test_dry_run_of_dicom_and_phantoms_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    series(tmp_path / "d" / "1", "1 t1 9 9 9")
    text = cohort("--input", tmp_path / "d", "--out", tmp_path / "out", "--dry-run")
    assert "sub-1" in text
    assert "3 phantom subjects" in cohort("--phantom", 3, "--out", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
