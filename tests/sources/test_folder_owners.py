"""Plain folders as sites and archives hand them out: whose image is it, and which is a copy."""

import logging
import os
from pathlib import Path

import pytest

from pipeline.sources.folder_owners import owners_of
from tests.support.source_folders import build, touch

TREES = {
    "oasis-1": (
        ["disc1/OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.nii",
         "disc2/OAS1_0040_MR2/RAW/OAS1_0040_MR2_mpr-1_anon.nii"],
        ["OAS1_0001/MR1", "OAS1_0040/MR2"]),
    "oasis-2": (["OAS2_0001_MR1/a.nii", "OAS2_0001_MR2/a.nii"], ["OAS2_0001/MR1", "OAS2_0001/MR2"]),
    "oasis-3": (["OAS30001_MR_d0129/anat1/x_T1w.nii"], ["OAS30001/d0129"]),
    "adni": (
        ["ADNI/002_S_0413/MPRAGE/2006-05-02_12_31_52.0/S1/ADNI_002_S_0413_MR_x.nii",
         "ADNI/002_S_0413/MPRAGE/2007-05-02_12_31_52.0/S2/ADNI_002_S_0413_MR_y.nii"],
        ["002_S_0413/20060502", "002_S_0413/20070502"]),
    "uk biobank": (["1000001_20252_2_0/T1/T1.nii.gz", "1000001_20252_3_0/T1/T1.nii.gz"],
                   ["1000001/2", "1000001/3"]),
    "hcp": (["100307/T1w/T1w_acpc_dc_restore.nii.gz"], ["100307/"]),
    "a folder of bids": (["x/sub-7/ses-2/anat/T1.nii"], ["7/2"]),
    "data above": (["data/raw/p1/T1.nii", "data/raw/p2/T1.nii"], ["p1/", "p2/"]),
    "data above files": (["images/anna.nii", "images/bert.nii"], ["anna/", "bert/"]),
    "a contrast above": (["T1/001.nii.gz", "T1/002.nii.gz"], ["001/", "002/"]),
    "diagnoses above": (["AD/001.nii", "AD/003.nii", "CN/002.nii"], ["001/", "003/", "002/"]),
    "one number at two sites": (["site1/001/T1.nii", "site2/001/T1.nii"],
                                ["site1001/", "site2001/"]),
    "one bids name at two sites": (["site1/sub-1/T1.nii", "site2/sub-1/T1.nii"],
                                   ["site11/", "site21/"]),
    "one person of ADNI in two groups": (["CN/002_S_0413/a.nii", "MCI/002_S_0413/b.nii"],
                                         ["002_S_0413/", "002_S_0413/"]),
    "files of IXI in a folder": (["ixi/IXI002-Guys-0828-T1.nii", "ixi/IXI012-HH-1211-T1.nii"],
                                 ["IXI002-Guys-0828-T1/", "IXI012-HH-1211-T1/"]),
    "named sites": (["london/001/T1.nii", "london/002/T1.nii", "rome/003/T1.nii"],
                    ["001/", "002/", "003/"]),
    "one study": (["MyStudy2020/P01/T1.nii", "MyStudy2020/P02/T1.nii"], ["P01/", "P02/"]),
    "one study deep": (["study_x/rome/nifti/P01/T1.nii", "study_x/rome/nifti/P02/T1.nii"],
                       ["P01/", "P02/"]),
    "names below one folder": (["friends/anna/x.nii", "friends/bert/x.nii"], ["anna/", "bert/"]),
    "visits above": (["baseline/001.nii", "baseline/002.nii", "followup/001.nii"],
                     ["001/baseline", "002/baseline", "001/followup"]),
    "people with visits": (["001/visit1/T1.nii", "001/visit2/T1.nii", "002/visit1/T1.nii"],
                           ["001/", "001/", "002/"]),
    "people with numbered scans": (["anna/0001.nii", "bert/0001.nii", "bert/0002.nii"],
                                   ["anna/", "bert/", "bert/"]),
    "people with months": (["M01/T1.nii", "M02/T1.nii"], ["M01/", "M02/"]),
    "one person": (["P01/m00/T1.nii", "P01/m12/T1.nii"], ["P01/", "P01/"]),
    "one person, dates": (["P01/2019-01-02/T1.nii", "P01/2020-01-02/T1.nii"], ["P01/", "P01/"]),
    "files alone": (["IXI012-Guys-0738-T1.nii", "007.nii"], ["IXI012-Guys-0738-T1/", "007/"]),
    "one image": (["anat/T1.nii"], ["anat/"]),
}  # fmt: skip


@pytest.mark.parametrize("tree", list(TREES))
def test_the_level_that_tells_people_apart_names_the_subject(tree: str) -> None:
    names, wanted = TREES[tree]
    owners = owners_of([Path("/r") / name for name in names], Path("/r"))
    found = [owners[Path("/r") / name] for name in names]
    assert [f"{owner.subject}/{owner.session}" for owner in found] == wanted


def test_people_of_a_disc_never_become_one_subject(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = [f"disc1/OAS1_000{n}_MR1" for n in (1, 2, 3)]
    touch(tmp_path, *(f"{p}/RAW/{p[6:]}_mpr-{n}_anon.nii" for p in people for n in (1, 2)))
    manifest, _ = build(tmp_path, "folder")
    assert list(manifest["subject_id"]) == [f"sub-OAS1000{n}" for n in (1, 1, 2, 2, 3, 3)]
    assert set(manifest["session_id"]) == {"ses-MR1"}
    assert manifest["scan_id"][0] == "sub-OAS10001_ses-MR1_acq-RAWOAS10001MR1mpr1anon"
    assert "(disc1) no person's name; subjects are taken from the names below" in caplog.text


def test_all_images_of_one_subject_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "disc1/scan1.nii", "disc1/scan2.nii", "disc1/scan3.nii")
    touch(tmp_path / "p", "P01/T1_a.nii", "P01/T1_b.nii")
    build(tmp_path / "p", "folder")
    assert "all 2 images are of one subject: P01; if they are not, give a table" in caplog.text


def test_one_persons_images_in_two_trees_keep_two_ids(tmp_path: Path) -> None:
    touch(tmp_path, "raw/OAS1_0001_MR1/x.nii", "processed/OAS1_0001_MR1/x.nii")
    manifest, refused = build(tmp_path, "folder")
    assert set(manifest["subject_id"]) == {"sub-OAS10001"}
    assert manifest["scan_id"].nunique() == 2
    assert refused.empty


def test_of_uk_biobank_one_image_a_visit_with_its_instance(tmp_path: Path) -> None:
    folder = "1000001_20252_2_0/T1/"
    others = ["T1_brain", "T1_orig", "T1_orig_defaced", "T1_unbiased_brain", "T1_brain_to_MNI",
              "T1_brain_mask", "T1_fast/T1_brain_seg", "T1_fast/T1_brain_bias"]  # fmt: skip
    touch(tmp_path, *(f"{folder}{name}.nii.gz" for name in ["T1", *others]))
    manifest, refused = build(tmp_path, "folder")
    assert list(manifest["scan_id"]) == ["sub-1000001_ses-2_acq-T1T1"]
    assert len(refused) == len(others)
    assert set(refused["stage"]) == {"selection"}
    made = refused.set_index("scan_id")["reason"]
    assert made["T1_brain"] == "made of T1.nii.gz by its name, which is taken"


def test_of_hcp_the_corrected_head_alone(tmp_path: Path) -> None:
    others = ["T1w/T1w_acpc_dc_restore_brain", "T1w/T1w_acpc_dc_restore_1.25", "T1w/T1w_acpc_dc",
              "T1w/T2w_acpc_dc_restore", "T1w/aparc+aseg", "T1w/ribbon", "T1w/100307/mri/T1",
              "MNINonLinear/T1w_restore", "MNINonLinear/T1w", "MNINonLinear/T2w_restore",
              "unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1"]  # fmt: skip
    people = [f"{n}/T1w/T1w_acpc_dc_restore.nii.gz" for n in (100307, 100408)]
    touch(tmp_path, *people, *(f"100307/{name}.nii.gz" for name in others))
    manifest, refused = build(tmp_path, "folder")
    assert list(manifest["subject_id"]) == ["sub-100307", "sub-100408"]
    assert {Path(p).name for p in manifest["path"]} == {"T1w_acpc_dc_restore.nii.gz"}
    assert len(refused) == len(others)
    assert set(refused["stage"]) == {"selection"}


def test_a_stripped_image_alone_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "1/T1_brain.nii", "2/T1_masked.nii", "3/x_n4.nii", "4.nii", "4_brain.nii")
    manifest, refused = build(tmp_path, "folder")
    assert list(manifest["subject_id"]) == ["sub-1", "sub-2", "sub-3", "sub-4"]
    assert list(refused["scan_id"]) == ["4_brain"]


@pytest.mark.parametrize("source", ["folder", "bids", "dicom"])
def test_a_folder_that_cannot_be_opened_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    pytest.importorskip("pydicom")
    if source == "bids":
        touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/deep/sub-1_T1w.nii.gz")
        closed = tmp_path / "sub-1" / "deep"
    else:
        ending = "dcm" if source == "dicom" else "nii"
        touch(tmp_path, f"1/x.{ending}", f"deep/y.{ending}")
        closed = tmp_path / "deep"
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    # Root opens every folder, so the refusal is made here.
    monkeypatch.setattr(os, "scandir", refuse)
    if source == "dicom":
        from pipeline.sources.dicom_source import dicom_records

        refused = dicom_records(tmp_path, None)[1]
    else:
        refused = build(tmp_path, source)[1].to_dict("records")
    reasons = {row["path"]: row["reason"] for row in refused}
    assert reasons[str(closed)] == "cannot be opened (Permission denied)"


def test_what_is_taken_for_people_is_silent_where_it_is_the_first_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    touch(tmp_path, "a/T1.nii", "b/T1.nii", "007.nii")
    build(tmp_path, "folder")
    assert not [r for r in caplog.records if "person's name" in r.message]
