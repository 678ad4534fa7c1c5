"""Ingest: any cohort in, nothing lost in silence."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from pipeline.probes.confounds.sites import site_names
from pipeline.sources.kind import detect_source
from schemas.errors import ContractError, ParamsError
from schemas.manifest import MANIFEST_COLUMNS
from tests.support.real_data import real_t1w
from tests.support.source_folders import build, faulty, table_of, touch


def test_bids_labels_sessions_runs_and_derivatives(
    bids: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manifest, refused = build(bids)
    rows = manifest.set_index("scan_id")
    assert list(manifest.columns[: len(MANIFEST_COLUMNS)]) == list(MANIFEST_COLUMNS)
    assert list(rows.index) == [
        "sub-001_ses-M00",
        "sub-001_ses-M06",
        "sub-002",
        "sub-003_acq-mprage_run-1",
        "sub-004",
    ]
    assert rows.loc["sub-001_ses-M06", "age_years"] == 70.7
    assert rows.loc["sub-001_ses-M06", "months_from_first"] == 6
    assert rows.loc["sub-001_ses-M06", "mmse"] == 27
    assert rows.loc["sub-002", "sex"] == "M"
    assert pd.isna(rows.loc["sub-002", "diagnosis"])
    assert rows.loc["sub-002", "site"] == "012"
    assert "derivatives" in rows.loc["sub-004", "path"]
    assert list(faulty(refused)["scan_id"]) == ["sub-005"]
    assert "several T1w" in caplog.text
    assert "sub-003_acq-mprage_run-10_T1w.nii.gz" in caplog.text


def test_run_2_comes_before_run_10(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-1/anat/sub-1_run-{n}_T1w.nii.gz" for n in (10, 2)))
    assert list(build(tmp_path)[0]["scan_id"]) == ["sub-1_run-2"]


def test_both_files_of_a_pair_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.hdr", "a.img")
    before = build(tmp_path, "folder")[0]["source_digest"][0]
    (tmp_path / "a.img").write_bytes(b"other voxels")
    assert build(tmp_path, "folder")[0]["source_digest"][0] != before


def test_phantom_truth_becomes_labels(bids: Path) -> None:
    touch(bids, "derivatives/truth/truth.tsv")
    (bids / "derivatives/truth/truth.tsv").write_text(
        "scan_id\tsubject_id\tventricle_mm3\nsub-002\tsub-002\t41000.5\n"
    )
    manifest, _ = build(bids)
    assert manifest.set_index("scan_id").loc["sub-002", "ventricle_mm3"] == 41000.5


def test_bad_files_are_refused_with_their_reason(bids: Path) -> None:
    (bids / "sub-002/anat/sub-002_T1w.nii").write_bytes(b"")
    touch(bids, "sub-001/ses-M00/anat/sub-001_ses-M00_T1w.nii")
    manifest, refused = build(bids)
    reasons = refused.groupby("scan_id")["reason"].first()
    assert "empty" in reasons["sub-002"]
    assert "duplicate scan id" in reasons["sub-001_ses-M00"]
    assert (refused["scan_id"] == "sub-001_ses-M00").sum() == 2
    assert "sub-001_ses-M00" not in set(manifest["scan_id"])


def test_identical_copies_keep_one(bids: Path) -> None:
    first = bids / "sub-001/ses-M00/anat/sub-001_ses-M00_T1w.nii.gz"
    first.with_name("sub-001_ses-M00_T1w.nii").write_bytes(first.read_bytes())
    manifest, refused = build(bids)
    assert "sub-001_ses-M00" in set(manifest["scan_id"])
    assert "identical copy" in refused.set_index("scan_id").loc["sub-001_ses-M00", "reason"]


def test_folder_names_become_ids(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/T1.nii.gz",
        "b/visit_2/T1.nii",
        "007.nii.gz",
        "sub-9_ses-1_T1w.nii.gz",
        "sub-9_ses-1_FLAIR.nii.gz",
        "fs01/mri/T1.mgz",
        "fs01/mri/aseg.mgz",
        "pair/x.hdr",
        "pair/x.img",
        ".hidden.nii.gz",
    )
    manifest, refused = build(tmp_path, "folder")
    ids = dict(zip(manifest["scan_id"], manifest["subject_id"], strict=True))
    assert ids == {
        "sub-007": "sub-007",
        "sub-9_ses-1": "sub-9",
        "sub-a_acq-T1": "sub-a",
        "sub-b_acq-visit2T1": "sub-b",
        "sub-fs01": "sub-fs01",
        "sub-pair_acq-x": "sub-pair",
    }
    reasons = {Path(p).name: r for p, r in zip(refused["path"], refused["reason"], strict=True)}
    assert set(reasons) == {"aseg.mgz", "sub-9_ses-1_FLAIR.nii.gz"}
    assert "flair in its name" in reasons["sub-9_ses-1_FLAIR.nii.gz"]
    assert "of FreeSurfer here; T1.mgz is taken" in reasons["aseg.mgz"]
    assert faulty(refused).empty


def test_any_column_becomes_the_site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.nii.gz", "2.nii.gz")
    table = {"ID": ["7", "8"], "path": ["1.nii.gz", "2.nii.gz"], "Tesla": [1.5, 3]}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    columns = {"subject": "ID", "site": "Tesla"}
    manifest, _ = build(tmp_path / "t.csv", "table", columns=columns)
    assert "Tesla" not in manifest
    assert list(site_names(manifest)) == ["1.5", "3"]
    assert "was" not in caplog.text


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_table_with_named_columns(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, "im/1.nii.gz", "im/2.nii.gz")
    table = pd.DataFrame(
        {
            "RID": ["002_S_0413", "0007", "0008"],
            "file": ["im/1.nii.gz", str(tmp_path / "im/2.nii.gz"), "im/3.nii.gz"],
            "AGE": ["71", "72", "73"],
            "DX": ["AD", "CN", "CN"],
            "apoe": ["e4", None, "e3"],
        }
    )
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert detect_source(path) == "table"
    columns = {"age": "AGE", "diagnosis": "DX"}
    manifest, refused = build(path, "table", columns=columns)
    assert list(manifest["subject_id"]) == ["sub-0007", "sub-002S0413"]
    assert list(manifest["age_years"]) == [72, 71]
    assert list(manifest["diagnosis"]) == ["CN", "AD"]
    assert manifest["apoe"].iloc[1] == "e4"
    assert list(refused["reason"]) == ["file not found"]


def test_unusable_inputs_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such"):
        build(tmp_path / "none")
    with pytest.raises(ContractError, match="no usable T1w"):
        build(tmp_path, "folder")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ContractError, match="no column for path"):
        build(tmp_path / "t.csv", "table")


def test_mapped_columns_that_cannot_be_are_named(bids: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"'DX' with entries.*there are .*age"):
        build(bids, columns={"age_years": "age", "diagnosis": "DX"})
    with pytest.raises(ParamsError, match="subject_id come from the files themselves"):
        build(bids, columns={"subject": "ID"})
    touch(tmp_path, "1.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text("ID,path,AGE\n7,1.nii.gz,71\n")
    names = {"subject": "ID", "age": "AGE"}
    assert list(build(table, "table", columns=names)[0]["subject_id"]) == ["sub-7"]
    with pytest.raises(ContractError, match=r"'amy' with entries, wanted for amyloid .*AGE"):
        build(table, "table", columns=names | {"amyloid": "amy"})


def test_columns_without_entries_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.nii.gz")
    (tmp_path / "t.csv").write_text("subject_id,path,split\n7,1.nii.gz,\n")
    with caplog.at_level("INFO"):
        build(tmp_path / "t.csv", "table")
    assert "t.csv: no entry in split" in caplog.text


def test_visits_without_sessions_are_told_apart_by_a_remedy(tmp_path: Path) -> None:
    touch(tmp_path, "1.nii.gz", "2.nii.gz", "3.nii.gz")
    (tmp_path / "2.nii.gz").write_bytes(b"another")
    (tmp_path / "t.csv").write_text("subject_id,path\n7,1.nii.gz\n7,2.nii.gz\n8,3.nii.gz\n")
    _, refused = build(tmp_path / "t.csv", "table")
    assert all(reason.endswith("give visits a session_id") for reason in refused["reason"])
    assert len(refused) == 2


def test_real_cohort_has_84_subjects() -> None:
    root = real_t1w()
    assert detect_source(root) == "bids"
    manifest, refused = build(root)
    assert manifest["subject_id"].nunique() == 84
    assert len(manifest) == 85
    assert refused.empty
    assert manifest["age_years"].notna().mean() > 0.9


def test_a_file_that_is_neither_image_nor_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(ContractError, match=r"cohort\.xlsx: neither an image"):
        detect_source(path)


def test_a_slip_in_the_name_of_a_column_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = table_of(tmp_path, "subject,path,AGE,Gender,ward\n1,1.nii,70,F,3\n2,2.nii,71,M,4\n")
    columns = {"sx": "Gender", "stage": "ward"}
    manifest, _ = build(people, "table", columns=columns)
    assert "Gender becomes a label called sx; was sex meant?" in caplog.text
    assert "ward" not in caplog.text
    assert list(manifest["sx"]) == ["F", "M"]
    assert manifest["sex"].isna().all()
    assert list(manifest["stage"]) == [3, 4]
    with pytest.raises(ContractError, match=r"people.csv: no column 'scans', wanted for path"):
        build(people, "table", columns={"path": "scans"})
    with pytest.raises(ContractError, match=r"people.csv: no column 'VISIT', wanted for session"):
        build(people, "table", columns={"session": "VISIT"})


def test_columns_are_known_however_their_letters_are_and_by_name_first(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path,Age,GENDER,age2\n1,1.nii,70,F,7\n2,2.nii,71,M,8\n")
    plain, _ = build(people, "table")
    assert list(plain["age_years"]) == [70, 71]
    assert list(plain["sex"]) == ["F", "M"]
    named, _ = build(people, "table", columns={"age": "age2", "was": "Age"})
    assert list(named["age_years"]) == [7, 8]
    assert list(named["was"]) == [70, 71]


def test_a_copy_with_other_labels_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    people = table_of(
        tmp_path, "subject,path,age\n1,1.nii,70\n1,1.nii,55\n2,2.nii,71\n2,2.nii,71\n"
    )
    manifest, refused = build(people, "table")
    assert list(manifest["age_years"]) == [70, 71]
    assert "sub-1: duplicate scan id" in caplog.text
    assert "sub-2" not in caplog.text
    assert "its labels differ (age 70 and 55)" in refused["reason"][0]
