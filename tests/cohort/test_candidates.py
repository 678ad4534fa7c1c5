"""Which image of several is taken: by BIDS name, by what the user prefers, and the next in turn."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort.candidates import read_candidates, write_candidates
from pipeline.cohort.ingest import build_cohort
from pipeline.sources.kind import detect_source
from schemas.errors import ContractError, ParamsError
from schemas.params import CohortParams
from stages.cli import app
from tests.support.source_folders import build, faulty, touch


def anat(root: Path, *names: str, subject: str = "sub-1") -> None:
    touch(root, *(f"{subject}/anat/{subject}_{name}.nii.gz" for name in names))


def taken(root: Path, **kwargs: object) -> str:
    """The name of the one image that is taken, without subject and suffix."""
    manifest, _ = build(root, **kwargs)
    assert len(manifest) == 1
    return Path(manifest["path"][0]).name.removeprefix("sub-1_").removesuffix(".nii.gz")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("acq-mprage_T1w", "acq-cspine_T1w"),
        ("acq-mprage_T1w", "acq-neck_T1w"),
        ("acq-mprage_T1w", "acq-2dtse_T1w"),
        ("acq-mprage_run-2_T1w", "acq-axtse_run-1_T1w"),
        ("acq-mprage_T1w", "acq-ax_T1w"),
        ("rec-rms_T1w", "echo-1_T1w"),
        ("acq-memprage_rec-rms_T1w", "acq-memprage_echo-1_T1w"),
        ("acq-mprage_run-1_T1w", "ce-gadolinium_T1w"),
        ("acq-mprage_T1w", "acq-postgd_T1w"),
        ("acq-mprage_part-mag_T1w", "inv-1_T1w"),
        ("acq-spgr_T1w", "acq-flair_T1w"),
        ("T1w", "rec-norm_T1w"),
        ("run-2_T1w", "run-10_T1w"),
    ],
)
def test_a_head_for_this_work_is_taken_before_another_acquisition(
    tmp_path: Path, better: str, worse: str
) -> None:
    anat(tmp_path, better, worse)
    assert taken(tmp_path) == better


def test_phase_images_are_no_scans_even_alone(tmp_path: Path) -> None:
    anat(tmp_path, "part-phase_T1w")
    anat(tmp_path, "part-mag_T1w", "part-phase_T1w", subject="sub-2")
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-2_part-mag"]
    reasons = refused.groupby("scan_id")["reason"].first()
    assert "phase, real or imaginary" in reasons["sub-1_part-phase_T1w"]
    assert "could be taken" in reasons["sub-1"]


def test_what_a_user_prefers_comes_before_all_defaults(tmp_path: Path) -> None:
    anat(tmp_path, "acq-mprage_T1w", "acq-cspine_T1w", "ce-gd_run-2_T1w")
    assert taken(tmp_path) == "acq-mprage_T1w"
    assert taken(tmp_path, prefer=["acq-CSPINE"]) == "acq-cspine_T1w"
    assert taken(tmp_path, prefer="run-2") == "ce-gd_run-2_T1w"
    assert taken(tmp_path, prefer=["acq-none", "gd"]) == "ce-gd_run-2_T1w"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"acquisition": "other"}, "acq-other_run-1_T1w"),
        ({"acquisition": ["x", "mprage"], "run": 2}, "acq-mprage_run-02_T1w"),
        ({"run": "2"}, "acq-mprage_run-02_T1w"),
        ({"acquisition": None}, "T1w"),
        ({"acq": "*", "run": 1, "suffix": "T1w", "datatype": "anat"}, "acq-mprage_run-01_T1w"),
    ],
)
def test_a_filter_file_of_fmriprep_is_obeyed(
    tmp_path: Path, wanted: dict[str, object], expected: str
) -> None:
    root = tmp_path / "bids"
    anat(root, "T1w", "acq-mprage_run-01_T1w", "acq-mprage_run-02_T1w", "acq-other_run-1_T1w")
    assert taken(root, bids_filter=wanted) == expected
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"t1w": wanted, "bold": {"task": "rest"}}))
    command = ["cohort", "--input", str(root), "--bids-filter-file", str(file), "--dry-run"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    listed = result.output.split("taken\n")[1].split("left out")[0]
    assert f"sub-1_{expected}.nii.gz" in listed


def test_filters_that_mean_nothing_are_refused_in_a_line(tmp_path: Path) -> None:
    anat(tmp_path, "T1w")
    with pytest.raises(ParamsError, match="bids_filter: acqisition='x'; expected entities"):
        build(tmp_path, bids_filter={"acqisition": "x"})
    file = tmp_path / "f.json"
    for text, said in (("{", "no valid JSON"), ('{"bold": {}}', "found bold"), ("[]", "list")):
        file.write_text(text)
        with pytest.raises(ParamsError, match=said):
            CliRunner().invoke(
                app,
                ["cohort", "--input", str(tmp_path), "--bids-filter-file", str(file), "--dry-run"],
                catch_exceptions=False,
            )
    with pytest.raises(ContractError, match="could be taken: does not fit"):
        build(tmp_path, bids_filter={"run": 7})


def test_other_images_of_a_session_stand_ready_in_order(tmp_path: Path) -> None:
    root = tmp_path / "bids"
    anat(root, "acq-mprage_run-1_T1w", "acq-mprage_run-2_T1w", "ce-gd_T1w")
    anat(root, "T1w", subject="sub-2")
    found = build_cohort(CohortParams(source="bids"), input_path=root)
    left = found.refused.set_index("scan_id")
    assert set(left["stage"]) == {"selection"}
    assert "acq-mprage_run-1_T1w.nii.gz is taken" in left["reason"]["sub-1_ce-gd_T1w"]
    write_candidates(found.candidates, root / "candidates.csv")
    images = read_candidates(root / "candidates.csv")
    assert list(images) == ["sub-1_acq-mprage_run-1"]
    names = [Path(image.path).name for image in images["sub-1_acq-mprage_run-1"]]
    assert names == [f"sub-1_{n}_T1w.nii.gz" for n in
                     ("acq-mprage_run-1", "acq-mprage_run-2", "ce-gd")]  # fmt: skip
    assert [image.note for image in images["sub-1_acq-mprage_run-1"]][1:] == [
        "", "scanned with a contrast agent by its name"]  # fmt: skip
    write_candidates(found.candidates[:0], root / "candidates.csv")
    assert not (root / "candidates.csv").exists()


def test_an_empty_first_run_gives_way_to_the_second(tmp_path: Path) -> None:
    anat(tmp_path, "run-1_T1w", "run-2_T1w")
    (tmp_path / "sub-1/anat/sub-1_run-1_T1w.nii.gz").write_bytes(b"")
    assert taken(tmp_path) == "run-2_T1w"
    refused = faulty(build(tmp_path)[1])
    assert dict(zip(refused["scan_id"], refused["reason"], strict=True)) == {
        "sub-1_run-1_T1w": "file is empty or missing"
    }


def test_unit1_alone_is_one_sentence_and_a_switch(tmp_path: Path) -> None:
    anat(tmp_path, "UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE", "T1map")
    assert detect_source(tmp_path) == "bids"
    with pytest.raises(ContractError, match=r"UNIT1 of MP2RAGE: take .*cohort.suffix=") as error:
        build(tmp_path)
    assert "\n" not in str(error.value)
    found = build_cohort(CohortParams(source="bids", suffix="UNIT1"), input_path=tmp_path)
    assert list(found.manifest["scan_id"]) == ["sub-1"]
    assert found.manifest["path"][0].endswith("sub-1_UNIT1.nii.gz")
    assert found.candidates.empty


def test_unit1_only_where_there_is_no_t1w(tmp_path: Path) -> None:
    anat(tmp_path, "UNIT1", "T1w")
    anat(tmp_path, "UNIT1", subject="sub-2")
    both = CohortParams(source="bids", suffix=["T1w", "UNIT1"])
    found = build_cohort(both, input_path=tmp_path)
    names = [Path(p).name for p in found.manifest["path"]]
    assert names == ["sub-1_T1w.nii.gz", "sub-2_UNIT1.nii.gz"]
    notes = found.candidates.set_index("scan_id")["note"]
    assert notes["sub-2"] == "UNIT1, where other scans are T1w"
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-1"]
    assert "it has UNIT1" in faulty(refused)["reason"].iloc[0]


def test_subjects_and_sessions_without_a_t1w_have_a_row(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-1/ses-1/anat/sub-1_ses-1_T1w.nii.gz",
        "sub-1/ses-2/func/sub-1_ses-2_task-rest_bold.nii.gz",
        "sub-2/dwi/sub-2_dwi.nii.gz",
        "sub-3/anat/sub-3_T1w.json",
        "dataset_description.json",
    )
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-1_ses-1"]
    reasons = refused.set_index("scan_id")["reason"]
    assert reasons["sub-1_ses-2"] == "no T1w image in this session (there are bold 1)"
    assert reasons["sub-2"] == "no T1w image was found (there are dwi 1)"
    assert reasons["sub-3"] == "no T1w image was found"


def test_t1w_that_bids_would_lose_have_a_row(tmp_path: Path) -> None:
    names = {
        "sub-1/anat/sub-1_T1w.mgz": ".mgz, expected .nii",
        "sub-2/anat/sub-2_t1w.nii.gz": "suffix _t1w, expected _T1w",
        "sub-3/sub-3_T1w.nii.gz": "expected in anat",
        "sub-4/anat/sub-4_T1w.mnc": "MINC",
        "sub-5/anat/old/sub-5_T1w.nii.gz": "expected in anat",
    }
    touch(tmp_path, *names, "sub-6/anat/sub-6_T1w.NII.GZ", "dataset_description.json")
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-6"]
    reasons = {Path(p).name: r for p, r in zip(refused["path"], refused["reason"], strict=True)}
    for name, said in names.items():
        assert said in reasons[Path(name).name]


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.MGHImage if path.suffix in {".mgz", ".mgh"} else nib.Nifti1Image
    nib.save(kind(data.astype(np.float32), np.eye(4) if affine is None else affine), path)
    return path


HEAD = np.random.default_rng(0).normal(100, 20, (12, 13, 14))


def test_one_image_in_two_formats_is_one_scan(tmp_path: Path) -> None:
    for name in ("1.nii.gz", "1.mgz", "2.nii", "2.nii.gz", "3.mgz"):
        save(tmp_path / name, HEAD + int(name[0]))
    save(tmp_path / "4.nii.gz", HEAD)
    save(tmp_path / "4.mgz", HEAD[::-1])
    manifest, refused = build(tmp_path, "folder")
    assert [Path(p).name for p in manifest["path"]] == ["1.nii.gz", "2.nii.gz", "3.mgz", "4.nii.gz"]
    reasons = {Path(p).name: r for p, r in zip(refused["path"], refused["reason"], strict=True)}
    assert set(reasons) == {"1.mgz", "2.nii", "4.mgz"}
    assert reasons["1.mgz"] == "the same image as 1.nii.gz, which is taken"
    assert reasons["2.nii"] == "the same image as 2.nii.gz, which is taken"
    assert "another image than 4.nii.gz" in reasons["4.mgz"]


def test_two_nifti_of_one_name_that_differ_are_both_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.nii.gz", HEAD)
    save(tmp_path / "1.nii", HEAD + 9)
    save(tmp_path / "2.nii", HEAD)
    (tmp_path / "2.nii.gz").write_bytes(b"broken")
    manifest, refused = build(tmp_path, "folder")
    assert [Path(p).name for p in manifest["path"]] == ["2.nii"]
    reasons = refused.groupby("scan_id")["reason"].first()
    assert "different content under one id" in reasons["sub-1"]
    assert "cannot be read" in reasons["sub-2"]


def test_paths_have_no_detours_and_links_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "data/a.nii", "far/b.nii", "elsewhere/x/c.nii")
    (tmp_path / "data" / "b.nii").symlink_to(tmp_path / "far" / "b.nii")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "x")
    monkeypatch.chdir(tmp_path / "far")
    manifest, refused = build(Path("../data/../far/../data"), "folder")
    assert list(manifest["path"]) == [str(tmp_path / "data" / n) for n in ("a.nii", "b.nii")]
    (tmp_path / "t.csv").write_text("subject_id,path\n1,../far/../data/a.nii\n2,nowhere/../x.nii\n")
    (tmp_path / "data" / "t.csv").write_text(
        "subject_id,path\n1,../far/../data/a.nii\n2,../link/../x/c.nii\n3,gone/../x.nii\n"
    )
    manifest, refused = build(Path("../data/t.csv"), "table")
    assert list(manifest["path"]) == [
        str(tmp_path / "data" / "a.nii"), str(tmp_path / "elsewhere" / "x" / "c.nii")]  # fmt: skip
    assert ".." not in refused["path"][0]
    assert Path(refused["path"][0]).is_absolute()


def test_dry_run_needs_no_out_and_lists_all_when_asked(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n:02d}.nii" for n in range(25)))
    command = ["cohort", "--input", str(tmp_path), "--dry-run"]
    short = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert "and 5 more (--verbose lists all)" in short
    assert "sub-24" not in short
    full = CliRunner().invoke(app, [*command, "--verbose"], catch_exceptions=False).output
    assert "sub-24  " in full
    assert "more (" not in full
    with pytest.raises(ParamsError, match="expected --out FOLDER"):
        CliRunner().invoke(app, command[:-1], catch_exceptions=False)


def test_a_warning_tells_of_several_images_without_sessions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    touch(tmp_path, "a/T1.nii", "a/T1_again.nii", "b/T1.nii", "sub-3_ses-1_T1w.nii",
          "sub-3_ses-2_T1w.nii")  # fmt: skip
    assert len(build(tmp_path, "folder")[0]) == 5
    assert "1 subject has more than one image without a session" in caplog.text
    assert "sub-a: T1.nii, T1_again.nii" in caplog.text


def test_columns_of_the_quarantine_list_stay(tmp_path: Path) -> None:
    anat(tmp_path, "run-1_T1w", "run-2_T1w")
    refused = build(tmp_path)[1]
    assert list(refused) == ["scan_id", "path", "stage", "reason"]
    assert isinstance(refused, pd.DataFrame)
