"""Tables of people: whom their rows are of, and what stands beside them."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.labels.people_tables import PARTICIPANTS
from pipeline.sources.dicom_source import dicom_sessions, is_dicom
from schemas.errors import ContractError
from stages.cli import app
from tests.support.source_folders import bids_of, build, manifest_of_table, touch


def test_subjects_are_matched_whatever_their_leading_zeros(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = "participant_id,age\n50772,20\n50773,21\n50774,22\n"
    root = bids_of(tmp_path, "sub-0050772", "sub-0050773", "sub-0050775", people=people)
    manifest, refused = build(root)
    assert manifest["age_years"].tolist()[:2] == [20, 21]
    assert list(refused["scan_id"]) == ["sub-50774"]
    assert "sub-50772 as sub-0050772" in caplog.text
    assert "scans without a row: sub-0050775; rows without a scan: sub-50774" in caplog.text


def test_equal_numbers_of_two_subjects_are_not_matched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bids_of(tmp_path, "sub-01", "sub-001", people="participant_id,age\n1,20\n")
    assert build(root)[0]["age_years"].isna().all()
    assert "several fit one another" in caplog.text
    (root / PARTICIPANTS).write_text("participant_id\tage\n1\t20\n01\t30\n")
    manifest = build(root)[0].set_index("scan_id")
    assert manifest.loc["sub-01", "age_years"] == 30
    assert manifest.loc["sub-001", "age_years"] == 20


def test_dry_run_shows_rows_without_scans(tmp_path: Path) -> None:
    people = "participant_id,session,age\nsub-1,ses-2,70\n"
    root = bids_of(tmp_path / "in", "sub-1_ses-1", people=people)
    asked = ["cohort", "--input", str(root), "--out", str(tmp_path / "out"), "--dry-run"]
    output = CliRunner().invoke(app, asked).output
    assert "scans without a row: sub-1 ses-1; rows without a scan: sub-1 ses-2" in " ".join(
        output.split()
    )


def test_names_that_shrink_to_one_label_are_refused(tmp_path: Path) -> None:
    text = "subject,visit,path\n1_12,bl,a.nii\n11_2,m12,b.nii\n"
    with pytest.raises(ContractError, match=r"t\.csv: '1_12' and '11_2' .* sub-112"):
        manifest_of_table(tmp_path, text)
    with pytest.raises(ContractError, match=r"'m.1' and 'm1' of sub-1 .* ses-m1"):
        manifest_of_table(tmp_path, "subject,visit,path\n1,m.1,a.nii\n1,m1,b.nii\n")
    with pytest.raises(ContractError, match=r"'11\.0' and '110'"):
        manifest_of_table(tmp_path, "subject,path\n11.0,a.nii\n110,b.nii\n11.5,c.nii\n")
    # The same name in other spellings is one person still.
    manifest = manifest_of_table(
        tmp_path, "subject,visit,path\n1_12,bl,a.nii\nsub-1_12 ,m12,b.nii\n"
    )
    assert set(manifest["subject_id"]) == {"sub-112"}


@pytest.mark.parametrize("source", ["folder", "dicom", "bids", "participants"])
def test_folders_that_shrink_to_one_label_are_refused(tmp_path: Path, source: str) -> None:
    if source == "bids":
        bids_of(tmp_path, "sub-zoë", "sub-zoe")
    elif source == "participants":
        bids_of(tmp_path, "sub-zoe", people="participant_id,age\nzoë,1\nzoe,1\n")
    else:
        ending = "dcm" if source == "dicom" else "nii"
        touch(tmp_path, f"zoë/t1/1.{ending}", f"zoe/x/2.{ending}")
    kind = "bids" if source == "participants" else source
    take = dicom_sessions if kind == "dicom" else partial(build, source=kind)
    # A Mac writes the letter and its accent apart; the name is shown whole.
    with pytest.raises(
        ContractError, match=r"'zo(e|ë)' and 'zo(ë|e)' would both be called sub-zoe"
    ):
        take(tmp_path)


def test_a_folder_of_images_has_labels_of_participants_too(tmp_path: Path) -> None:
    touch(tmp_path, "001/T1.nii", "002/T1.nii")
    (tmp_path / PARTICIPANTS).write_text("participant_id\tage\n1\t70\n2\t71\n")
    assert build(tmp_path, "folder")[0]["age_years"].tolist() == [70, 71]


def test_a_sessions_table_that_cannot_be_read_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bids_of(tmp_path, "sub-1_ses-1", "sub-2_ses-1", people="participant_id\nsub-1\nsub-2\n")
    (root / "sub-1/sub-1_sessions.tsv").write_text("when\tage\n1\t70\n")
    (root / "sub-2/sub-2_sessions.tsv").write_text("session\tage\n1\t71\n")
    manifest, _ = build(root)
    assert pd.isna(manifest["age_years"][0])
    assert manifest["age_years"][1] == 71
    assert "sub-1_sessions.tsv: no column session_id (has when, age)" in caplog.text


def test_files_that_systems_leave_behind_are_passed_over(tmp_path: Path) -> None:
    root = bids_of(tmp_path / "b", "sub-1", people="participant_id\nsub-1\n")
    touch(root, "sub-1/anat/._sub-1_T1w.nii.gz", "._sub-2/anat/sub-2_T1w.nii.gz")
    manifest, refused = build(root)
    assert list(manifest["scan_id"]) == ["sub-1"]
    assert refused.empty
    folder = tmp_path / "f"
    touch(folder, "a/1.nii", "a/._1.nii", "__MACOSX/a/1.nii", ".git/annex/objects/x/y/z.nii.gz",
          "a/@eaDir/1.nii", "a/Thumbs.db")  # fmt: skip
    assert list(build(folder, "folder")[0]["scan_id"]) == ["sub-a_acq-1"]
    touch(folder, "._1.dcm")
    assert not is_dicom(folder / "._1.dcm")


def test_paths_are_whole_and_short_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "im/a.nii", "tables/x")
    (tmp_path / "im/b.nii").write_bytes(b"")
    (tmp_path / "tables/t.csv").write_text("subject,path\n1,../im/a.nii\n2,../im/b.nii\n")
    monkeypatch.chdir(tmp_path / "im")
    manifest, refused = build(Path("../tables/t.csv"), "table")
    assert manifest["path"].tolist() == [str(tmp_path / "im/a.nii")]
    assert refused["path"].tolist() == [str(tmp_path / "im/b.nii")]
    bids_of(tmp_path / "bids", "sub-1", people="participant_id\nsub-1\nsub-2\n")
    assert build(Path("../bids"))[1]["path"].tolist() == [str(tmp_path / "bids/sub-2")]


@pytest.mark.slow
def test_init_counts_people_and_scans(tmp_path: Path) -> None:
    root = bids_of(tmp_path / "b", "sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1",
                   people="participant_id,group\nsub-1,HC\nsub-2,MCI\n")  # fmt: skip
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(root)])
    assert "3 scans of 2 subjects found." in result.output
    assert "diagnosis holds HC (1), MCI (1), not CN and AD" in result.output
