"""Ingest of what people really have: odd names, odd cells, copies, links."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohort.ingest import build_manifest
from pipeline.labels.label_parsing import ages_of
from schemas.errors import ContractError
from schemas.params import CohortParams
from tests.support.source_folders import build, faulty, touch


def table(path: Path, text: str | bytes, **kwargs: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return build(path, "table", **kwargs)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets(tmp_path: Path, separator: str) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    text = "\ufeffsubject_id,path,age,mmse\r\n001,a.nii,70,29\r\n002,b.nii,NA,NA\r\n"
    manifest, refused = table(tmp_path / "t.csv", text.replace(",", separator))
    assert list(manifest["subject_id"]) == ["sub-001", "sub-002"]
    assert manifest["age_years"].tolist()[0] == 70
    assert manifest[["age_years", "mmse"]].isna().to_numpy()[1].all()
    assert manifest["mmse"].tolist()[0] == 29
    assert refused.empty


def test_table_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="save it as CSV in UTF-8"):
        table(tmp_path / "t.csv", b"subj\xe9ct_id,path\n001,a.nii\n")


def test_row_without_subject_is_refused_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    manifest, refused = table(tmp_path / "t.csv", "subject_id,path\n001,a.nii\n,b.nii\n")
    assert list(manifest["scan_id"]) == ["sub-001"]
    assert list(refused["scan_id"]) == ["row-3"]
    assert refused["reason"][0].startswith("no subject given")


def test_ages_as_people_write_them(caplog: pytest.LogCaptureFixture) -> None:
    cells = ["70", 70.5, ">89", "89+", "034Y", "018M", "33 years", None, "-4", "999", "old"]
    ages, texts = ages_of(cells, [f"s{i}" for i in range(len(cells))], "t.csv")
    assert ages == [70, 70.5, 89, 89, 34, 1.5, 33, None, None, None, None]
    assert [text for text in texts if text] == [">89", "89+", "old"]
    assert caplog.messages == [
        "t.csv: no age in years, taken as unknown, the text kept in age_text: s10 (old)",
        "t.csv: ages taken as unknown: s8 (-4), s9 (999)",
        "t.csv: a bound is taken as the age, the text kept in age_text: s2 (>89), s3 (89+)",
    ]


def test_names_with_accents_and_spaces_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "sub-zoë/anat/sub-zoë_T1w.nii.gz", "sub-zo/anat/sub-zo_T1w.nii.gz")
    assert list(build(tmp_path)[0]["scan_id"]) == ["sub-zo", "sub-zoe"]
    touch(tmp_path / "f", "päth with späces/001 (copy).nii.gz")
    assert list(build(tmp_path / "f", "folder")[0]["scan_id"]) == ["sub-pathwithspaces_acq-001copy"]


def test_name_against_folder_is_refused(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-1/ses-a/anat/sub-1_ses-b_T1w.nii.gz",
        "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz",
        "sub-2/anat/sub-3_T1w.nii.gz",
        "sub-4/ses-a/anat/sub-4_T1w.nii.gz",
    )
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-1_ses-a"]
    reasons = dict(zip(refused["scan_id"], refused["reason"], strict=True))
    assert "says ses-b, its folder ses-a" in reasons["sub-1_ses-b_T1w"]
    assert "says sub-3, its folder sub-2" in reasons["sub-3_T1w"]
    assert "says no ses-, its folder ses-a" in reasons["sub-4_T1w"]


def test_the_plainest_of_several_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = "derivatives/fmriprep/sub-1/anat/"
    touch(
        tmp_path,
        folder + "sub-1_desc-preproc_T1w.nii.gz",
        folder + "sub-1_space-MNI152_desc-preproc_T1w.nii.gz",
        "sub-2/anat/sub-2_echo-2_T1w.nii.gz",
        "sub-2/anat/sub-2_echo-1_T1w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-1\nsub-2\n")
    manifest, refused = build(tmp_path)
    assert list(manifest["scan_id"]) == ["sub-1", "sub-2_echo-1"]
    assert faulty(refused).empty
    assert "sub-1_space-MNI152_desc-preproc_T1w.nii.gz" in caplog.text


def test_one_image_under_two_subjects_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.nii")
    manifest, _ = build(tmp_path, "folder")
    assert len(manifest) == 2
    assert "one image under several subjects: sub-a, sub-b" in caplog.text


def test_broken_links_and_read_only_input(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii")
    (tmp_path / "in" / "b.nii").symlink_to(tmp_path / "nowhere.nii")
    (tmp_path / "in").chmod(0o555)
    try:
        source = CohortParams(source="folder")
        manifest, refused = build_manifest(source, input_path=tmp_path / "in")
    finally:
        (tmp_path / "in").chmod(0o755)
    assert list(manifest["scan_id"]) == ["sub-a"]
    assert dict(zip(refused["scan_id"], refused["reason"], strict=True)) == {
        "sub-b": "file not found"
    }


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "far/x.nii", "in/a/y.nii")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
    manifest, _ = build(tmp_path / "in", "folder")
    assert list(manifest["subject_id"]) == ["sub-a", "sub-b"]
