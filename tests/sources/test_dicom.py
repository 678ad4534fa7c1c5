"""DICOM series folders through dcm2niix: which series is taken, what is told, and the dry run."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort.ingest import build_cohort, build_manifest
from pipeline.sources import dicom_conversion as conversion
from pipeline.sources import dicom_source as dicom
from pipeline.sources.dicom_files import is_dicom
from pipeline.sources.dicom_headers import slices_of
from pipeline.sources.dicom_source import dicom_records, dicom_sessions, write_anonymous
from pipeline.sources.kind import detect_source
from schemas.errors import ContractError, ParamsError
from schemas.params import CohortParams
from stages.cli import app
from tests.support.dicom_fixtures import look, multiframe, series


def mark(folder: Path, count: int = 1) -> Path:
    """Write files with nothing but DICOM's mark."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"IM{i}").write_bytes(bytes(128) + b"DICM")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The series that are converted, in order."""
    names: list[str] = []

    def counted(series: Any, folder: Path, converter: str) -> Any:
        names.append(series.name)
        return conversion.convert_series(series, folder, converter)

    monkeypatch.setattr(dicom, "convert_series", counted)
    return names


def test_sessions_are_named_by_folders_alone(tmp_path: Path) -> None:
    mark(tmp_path / "001" / "MPRAGE")
    mark(tmp_path / "A_2" / "M06" / "T1")
    mark(tmp_path / "A_2" / "M06" / "T2")
    mark(tmp_path / "sub-3" / "ses-1")
    (tmp_path / "sub-3" / "notes.txt").write_text("no DICOM")
    mark(tmp_path / "empty", 0)
    found = {s.scan_id: len(s.folders) for s in dicom_sessions(tmp_path)}
    assert found == {"sub-001": 1, "sub-A2_ses-M06": 2, "sub-3_ses-1": 1}


def test_what_is_dicom(tmp_path: Path) -> None:
    assert is_dicom(tmp_path / "a.DCM")
    assert not is_dicom(tmp_path / "._a.dcm")
    mark(tmp_path)
    assert is_dicom((tmp_path / "IM0").rename(tmp_path / "1.2.840.7"))
    (tmp_path / "README").write_text("x" * 200)
    assert not is_dicom(tmp_path / "README")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not is_dicom(tmp_path / "DICOMDIR")
    assert detect_source(tmp_path) == "dicom"
    series(tmp_path / "old", preamble=False)
    assert is_dicom(tmp_path / "old" / "IM03_000")
    (tmp_path / "a.nii.gz").write_bytes(b"1")
    assert detect_source(tmp_path) == "folder"


def test_one_t1w_a_session_and_the_rest_refused_with_reasons(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "001" / "all", "scout", 1, slices=range(3))
    series(root / "001" / "all", "T2 tse", 2)
    series(root / "001" / "all", "MPRAGE", 9)
    series(root / "001" / "all", "MPRAGE", 10)
    series(root / "002" / "a", "x", 1, EchoTime=30)
    series(root / "002" / "a", "y", 2, EchoTime=30)
    series(root / "003" / "a", "anything", 1)
    mark(root / "004" / "a")
    (root / "participants.tsv").write_text("participant_id\tage\n001\t70\n003\t71\n")
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-001", "sub-003"]
    assert list(manifest["age_years"]) == [70, 71]
    assert nib.load(manifest["path"][0]).shape == (10, 12, 12)
    line = next(text for text in caplog.messages if text.startswith("sub-001"))
    assert line.startswith("sub-001: series 9 MPRAGE (1.0 mm) taken; left: series 1 scout: a local")
    assert "series 2 T2 tse: T2w or FLAIR by name" in line
    assert "series 10 MPRAGE: T1w too, but a later series of the same kind" in line
    faults = refused[refused["stage"] == "cohort"].groupby("scan_id")["reason"].agg(" ".join)
    assert "no T1w by its name, contrast or timing" in faults["sub-002"]
    assert "hold no readable DICOM header" in faults["sub-004"]
    assert len(refused[refused["stage"] == "selection"]) == 3
    assert sorted(p.name for p in cache.glob("*.gz")) == ["sub-001.nii.gz", "sub-003.nii.gz"]


MP2RAGE: dict[str, dict[str, Any]] = {
    "mp2rage_INV1": {"InversionTime": 700},
    "mp2rage_INV2": {"InversionTime": 2500},
    "mp2rage_T1_Images": {"ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "ND"]},
    "mp2rage_UNI_Images": {"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "UNI"]},
    "mp2rage_UNI-DEN": {"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "UNI"]},
}


@pytest.mark.slow
def test_of_mp2rage_the_denoised_uni_is_taken_then_the_plain_one(tmp_path: Path) -> None:
    for number, (name, more) in enumerate(MP2RAGE.items(), 1):
        series(tmp_path / "1" / name, name, number, slices=range(20 - number), **more)
    taken, left, notes = look(tmp_path)
    assert (taken, notes) == ("mp2rage_UNI-DEN", "")
    assert left["mp2rage_INV1"] == left["mp2rage_INV2"] == "an inversion of MP2RAGE by name"
    assert left["mp2rage_T1_Images"] == "a T1 map (ImageType T1 MAP)"
    assert "a plain UNI with noise as air" in left["mp2rage_UNI_Images"]
    for file in (tmp_path / "1" / "mp2rage_UNI-DEN").iterdir():
        file.unlink()
    taken, left, notes = look(tmp_path)
    assert (taken, notes) == ("mp2rage_UNI_Images", "a plain UNI of MP2RAGE, whose air is noise")


SEC, MPR = ["DERIVED", "SECONDARY", "OTHER"], ["DERIVED", "SECONDARY", "MPR"]


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("t1_mprage_MPR_Tra", {"ImageType": MPR, "step": 6.0}, "a reformatted series (6.0 mm)"),
        ("t1_mprage", {"ImageType": SEC, "slices": range(30)}, "a reformatted series"),
        ("t1_mprage", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "a phase image"),
        ("t1_mprage", {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]}, "a phase image"),
        ("t1_mprage", {"ImageType": ["ORIGINAL", "PRIMARY", "I"]}, "a real or imaginary part"),
        ("t1_mprage_sag", {"ContrastBolusAgent": "Gadovist"}, "with a contrast agent"),
        ("t1_mprage +C", {"slices": range(30)}, "with a contrast agent"),
        ("T1 nach KM", {}, "with a contrast agent"),
        ("t1_se_tra", {"step": 5.0, "slices": range(30)}, "larger voxels (5.0 mm)"),
        ("T1 FLAIR", {"step": 4.0}, "larger voxels (4.0 mm)"),
        ("t2_space_flair", {"slices": range(30)}, "T2w or FLAIR by name"),
        ("SWI_Images", {}, "susceptibility by name"),
        ("ep2d_diff_ADC", {}, "diffusion by name"),
        ("AAHead_Scout_MPR_sag", {}, "a localizer by name"),
        ("tfl_b1map", {}, "a field map by name"),
        ("T1_map_MOLLI", {}, "a T1 map by name"),
        ("pc3d_angio", {}, "angiography by name"),
        ("gre_ns", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer (ImageType"),
        ("t1_mip", {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection"),
        ("head", {"Modality": "CT"}, "modality CT"),
        ("screenshot t1", {"slices": range(2)}, "2 slice positions, too few for a head"),
        ("whatever", {"EchoTime": 90, "ScanningSequence": "SE"}, "T2w by its echo time (90 ms)"),
        ("unnamed", {"EchoTime": 30, "slices": range(40)}, "no T1w by its name, contrast or"),
    ],
)
def test_another_series_is_left_for_what_its_header_says(
    tmp_path: Path, name: str, more: dict[str, Any], why: str
) -> None:
    series(tmp_path / "1" / "a", "t1_mprage_ok", 9)
    series(tmp_path / "1" / "b", name, 2, **more)
    taken, left, notes = look(tmp_path)
    assert (taken, notes) == ("t1_mprage_ok", "")
    assert why in left[name]


def test_timing_makes_a_t1w_of_a_series_without_a_name(tmp_path: Path) -> None:
    gradient = {"ScanningSequence": ["GR", "IR"], "InversionTime": 900, "RepetitionTime": 2300}
    series(tmp_path / "1" / "a", "Brain 3D", 1, **gradient)
    series(tmp_path / "1" / "b", "Brain 2", 2, ScanningSequence="GR", EchoTime=20)
    assert look(tmp_path)[0] == "Brain 3D"


def test_what_a_user_prefers_decides_among_series(tmp_path: Path) -> None:
    series(tmp_path / "1" / "a", "t1_mprage", 1)
    series(tmp_path / "1" / "b", "t1_mprage ND", 2, step=2.0)
    assert look(tmp_path)[0] == "t1_mprage"
    assert look(tmp_path, prefer=["nd"])[0] == "t1_mprage ND"


@pytest.mark.slow
def test_echoes_of_one_series_are_no_volumes_of_it_and_combined_ones_come_first(
    tmp_path: Path,
) -> None:
    for echo in (1.7, 3.6, 5.4):
        series(tmp_path / "1" / f"e{echo}", "MEMPRAGE_4e", 1, EchoTime=echo)
    assert look(tmp_path)[0] == "MEMPRAGE_4e"
    assert dicom_records(tmp_path, None)[0][0].path.parent.name == "e1.7"
    series(tmp_path / "1" / "rms", "MEMPRAGE_4e RMS", 2, EchoTime=1.7)
    assert look(tmp_path)[0] == "MEMPRAGE_4e RMS"


@pytest.mark.slow
def test_files_of_two_patients_in_one_session_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "dicom"
    series(root / "1" / "a")
    series(root / "1" / "b", number=4, PatientID="MRN8")
    series(root / "2" / "a")
    series(root / "2" / "b", number=4, StudyInstanceUID="9.9")
    series(root / "3" / "a")
    cache = tmp_path / "cache"
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-3"]
    reasons = refused.set_index("scan_id")["reason"]
    assert reasons["sub-1"] == (
        "files of 2 patients in one session (PatientID differs, as in a/IM03_000 and"
        " b/IM04_000); give each a folder of its own"
    )
    assert "files of 2 studies in one session (StudyInstanceUID differs" in reasons["sub-2"]
    assert not refused["reason"].str.contains("MRN").any()


def test_how_slices_lie() -> None:
    even = list(np.arange(20) * 1.2)
    assert slices_of(even).step == pytest.approx(1.2)
    assert (slices_of(even).missing, slices_of(even).doubled, slices_of(even).uneven) == (
        0,
        0,
        False,
    )
    assert slices_of([*even[:5], *even[8:]]).missing == 3
    assert slices_of([even[0], *even[2:]]).missing == 1
    assert slices_of([*even, even[4]]).doubled == 1
    assert slices_of(even * 3).volumes == 3
    assert slices_of([*even, 5.5 * 1.2]).uneven
    assert slices_of([*even[:-1], even[-1] + 0.6]).uneven
    assert slices_of([p + 0.004 * (i % 3) for i, p in enumerate(even)]).missing == 0
    assert slices_of([]).count == 0
    assert slices_of([1.0] * 5).doubled == 4


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        ([*range(7), *range(10, 100)], "3 of 100 slices are missing (3.0%"),
        pytest.param([0, *range(4, 40)], "3 of 40 slices are missing", marks=pytest.mark.slow),
        pytest.param(
            [*range(40), 12], "1 slices are doubled (40 positions)", marks=pytest.mark.slow
        ),
        pytest.param(
            [*range(40), *range(40)], "2 volumes in one series (80 images)", marks=pytest.mark.slow
        ),
    ],
)
def test_missing_and_doubled_slices_and_two_volumes_are_told(
    tmp_path: Path, slices: list[int], reason: str
) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1" / "bad", "t1_mprage", 1, slices=slices)
    series(root / "2" / "bad", "t1_mprage", 1, slices=slices)
    series(root / "2" / "ok", "t1_mprage rerun", 2, step=2.0)
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-2"]
    assert reason in refused.set_index("scan_id")["reason"]["sub-1"]
    assert reason in refused.set_index("scan_id")["reason"]["sub-2"]


@pytest.mark.slow
def test_few_filled_in_slices_are_a_reason_of_the_scan(tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1" / "a", slices=[*range(30), *range(31, 100)])
    found = build_cohort(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert nib.load(found.manifest["path"][0]).shape[2] == 100
    note = found.candidates["note"][0]
    assert note.startswith("1 of 100 slices are missing in the DICOM series and were interpolated")
    assert "dicom" not in note.split("dcm2niix")[1].lower()
    assert "dcm2niix: Interslice distance varies" in note or "Missing images?" in note
    again = build_cohort(CohortParams(source="dicom"), input_path=root, cache=cache)
    pd.testing.assert_frame_equal(again.candidates, found.candidates)


def test_a_series_that_cannot_be_converted_gives_way_with_the_converters_words(
    tmp_path: Path,
) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    for subject in ("1", "2"):
        folder = series(root / subject / "a", "t1_mprage", 1)
        file = folder / "IM01_004"
        file.write_bytes(file.read_bytes()[:-60])
    series(root / "2" / "b", "t1_mprage", 2, step=2.0)
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-2"]
    assert nib.load(manifest["path"][0]).header.get_zooms()[2] == 2
    for _, row in refused.iterrows():
        assert row["reason"].startswith(
            "series 1 t1_mprage: no image could be made of it (dcm2niix:"
        )
        assert "IM01_004" in row["reason"]
        assert str(tmp_path) not in row["reason"]


def test_a_file_exported_twice_counts_once(tmp_path: Path) -> None:
    root = series(tmp_path / "d" / "1" / "a").parent.parent
    (root / "1" / "copy").mkdir()
    for file in (root / "1" / "a").iterdir():
        (root / "1" / "copy" / file.name).write_bytes(file.read_bytes())
    records, refused = dicom_records(root, tmp_path / "cache")
    assert nib.load(records[0].path).shape == (10, 12, 12)
    assert refused == []


@pytest.mark.slow
def test_files_without_a_suffix_or_a_preamble_and_multiframe_images(tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1" / "a", preamble=False)
    series(root / "2" / "a", suffix=".IMA")
    multiframe(root / "3" / "a" / "IM")
    multiframe(root / "4" / "a" / "IM", slices=[*range(6), *range(9, 12)])
    series(root / "5" / "a")
    (root / "5" / "a" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    manifest, refused = build_manifest(CohortParams(source="dicom"), input_path=root, cache=cache)
    assert list(manifest["scan_id"]) == ["sub-1", "sub-2", "sub-3", "sub-5"]
    for path in manifest["path"]:
        assert sorted(nib.load(path).shape) == [10, 12, 12]
    assert "3 of 12 slices are missing" in refused.set_index("scan_id")["reason"]["sub-4"]


def test_second_run_converts_what_changed_alone(calls: list[str], tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1" / "x", "t1 one", 1)
    series(root / "1" / "y", "t2", 2)
    series(root / "2" / "x", "t1 two", 1)
    first = dicom_records(root, cache)
    before = (cache / "sub-1.nii.gz").read_bytes()
    assert sorted(calls) == ["1 t1 one", "1 t1 two"]
    assert dicom_records(root, cache) == first
    series(root / "2" / "x", "t1 two", 1, slices=range(14))
    dicom_records(root, cache)
    assert sorted(calls) == ["1 t1 one", "1 t1 two", "1 t1 two"]
    assert nib.load(cache / "sub-2.nii.gz").shape[2] == 14
    assert (cache / "sub-1.nii.gz").read_bytes() == before
    (cache / "sub-1.source").write_text("a digest of an earlier version")
    dicom_records(root, cache, ("one",))
    assert (cache / "sub-1.nii.gz").read_bytes() == before


def test_nothing_personal_is_kept(tmp_path: Path) -> None:
    root, cache = tmp_path / "dicom", tmp_path / "cache"
    series(root / "1")
    dicom_records(root, cache)
    content = gzip.decompress((cache / "sub-1.nii.gz").read_bytes())
    kept = content + (cache / "sub-1.source").read_bytes()
    assert not any(word in kept for word in (b"Known", b"Jane", b"MRN7", b"Time=", b"1.2.3"))
    assert sorted(p.name for p in cache.iterdir()) == ["sub-1.nii.gz", "sub-1.source"]
    assert set(json.loads((cache / "sub-1.source").read_text())) == {
        "state", "taken", "notes", "rows"}  # fmt: skip


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
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    mark(tmp_path / "d" / "1")
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
    series(tmp_path / "d" / "1" / "dti", "ep2d_diff", 1)
    series(tmp_path / "d" / "1" / "t1", "t1_mprage", 2)
    text = cohort("--input", tmp_path / "d", "--dry-run")
    assert "sub-1  " in text.split("taken\n")[1].split("left out")[0]
    assert str(tmp_path / "d" / "1" / "t1" / "IM02_000") in text
    assert "series 1 ep2d_diff: diffusion by name" in text.split("left out\n")[1]
    assert "3 phantom subjects" in cohort("--phantom", 3, "--out", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
