"""Ingest: any cohort in, nothing lost in silence."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort.ingest import detect_source
from pipeline.cohort.manifest import read_manifest, write_manifest
from pipeline.cohort.split import split_subjects
from schemas.errors import ContractError, ParamsError
from schemas.manifest import MANIFEST_COLUMNS
from schemas.params import SplitParams
from stages.cli import app
from stages.scaffold import scaffold
from tests.support.real_data import real_t1w
from tests.support.source_folders import build, faulty, touch


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    touch(
        root,
        "sub-001/ses-M00/anat/sub-001_ses-M00_T1w.nii.gz",
        "sub-001/ses-M06/anat/sub-001_ses-M06_T1w.nii.gz",
        "sub-002/anat/sub-002_T1w.nii",
        "sub-002/anat/sub-002_T2w.nii",
        "sub-003/anat/sub-003_acq-mprage_run-2_T1w.nii.gz",
        "sub-003/anat/sub-003_acq-mprage_run-10_T1w.nii.gz",
        "sub-003/anat/sub-003_acq-mprage_run-1_T1w.nii.gz",
        "derivatives/other/sub-004/anat/sub-004_desc-x_T1w.nii.gz",
        "derivatives/other/sub-002/anat/sub-002_desc-x_T1w.nii.gz",
    )
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\tdiagnosis\tsite\n"
        "sub-001\t70\tF\tAD\t007\nsub-002\t65.5\tmale\tn/a\t012\n"
        "sub-003\tn/a\tM\tCN\t007\nsub-004\t50\tf\tCN\t007\nsub-005\t51\tM\tCN\t007\n"
    )
    (root / "sub-001" / "sub-001_sessions.tsv").write_text(
        "session_id\tage\tmmse\nses-M00\t70.2\t29\nses-M06\t70.7\t27\n"
    )
    return root


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


def test_manifest_round_trip_and_relative_paths(bids: Path, tmp_path: Path) -> None:
    manifest, _ = build(bids)
    write_manifest(manifest, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    assert list(again["scan_id"]) == list(manifest["scan_id"])
    assert all(path.startswith("bids/") for path in again["path"])
    assert again["site"].iloc[0] == "007"
    assert again["session_id"].iloc[2] == ""
    np.testing.assert_array_equal(again["age_years"], manifest["age_years"])
    write_manifest(manifest, tmp_path / "elsewhere" / "manifest.csv")
    moved = read_manifest(tmp_path / "elsewhere" / "manifest.csv")
    assert all(Path(path).is_absolute() for path in moved["path"])


def _spoil(manifest: pd.DataFrame, name: str) -> pd.DataFrame:
    spoilt = manifest.copy()
    if name == "duplicate":
        spoilt.loc[1, "scan_id"] = spoilt.loc[0, "scan_id"]
    elif name == "two splits":
        spoilt.loc[0, "split"] = "test" if spoilt.loc[1, "split"] == "train" else "train"
    elif name == "unknown split":
        spoilt.loc[1, "split"] = "dev"
    elif name == "no path":
        spoilt.loc[1, "path"] = ""
    elif name == "column":
        spoilt = spoilt.drop(columns="sex")
    elif name == "age":
        spoilt["age_years"] = spoilt["age_years"].astype(object)
        spoilt.loc[1, "age_years"] = "old"
    return spoilt


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("duplicate", "not unique: .*row 2.*row 3"),
        ("two splits", "two splits: .*row 2"),
        ("unknown split", "'dev'.*row 3"),
        ("no path", "path is empty for .*row 3"),
        ("column", "columns sex"),
        ("age", "'old'.*row 3"),
    ],
)
def test_manifest_faults_name_the_rows(
    bids: Path, tmp_path: Path, name: str, expected: str
) -> None:
    manifest, _ = build(bids)
    path = tmp_path / "manifest.csv"
    _spoil(manifest, name).to_csv(path, index=False)
    with pytest.raises(ContractError, match=expected):
        read_manifest(path)


def test_split_is_exact_stratified_and_ignores_order() -> None:
    strata = {f"sub-{i:03d}": "AD" if i % 2 else "CN" for i in range(24)}
    params = SplitParams(train=0.6, val=0.15)
    split = split_subjects(strata, params)
    counts = pd.Series(split).value_counts()
    assert counts.to_dict() == {"train": 14, "val": 4, "test": 6}
    reverse = split_subjects(dict(reversed(strata.items())), params)
    assert split == reverse
    for name in ("train", "val", "test"):
        sick = sum(strata[s] == "AD" for s, v in split.items() if v == name)
        assert abs(sick - counts[name] / 2) <= 1
    other = split_subjects(strata, params.model_copy(update={"seed": params.seed + 1}))
    assert other != split


@pytest.mark.parametrize("total", [3, 4, 6])
def test_small_cohorts_leave_no_split_empty(total: int) -> None:
    split = split_subjects({f"s{i}": "" for i in range(total)}, SplitParams(train=0.8, val=0.1))
    assert set(split.values()) == {"train", "val", "test"}


def test_real_cohort_has_84_subjects() -> None:
    root = real_t1w()
    assert detect_source(root) == "bids"
    manifest, refused = build(root)
    assert manifest["subject_id"].nunique() == 84
    assert len(manifest) == 85
    assert refused.empty
    assert manifest["age_years"].notna().mean() > 0.9


def table_with_split(folder: Path, splits: list[str]) -> Path:
    names = [f"{i}.nii" for i in range(len(splits))]
    touch(folder, *names)
    people = ["a", *(f"p{i}" for i in range(len(splits) - 2)), "a"]
    table = pd.DataFrame({"subject": people, "path": names, "split": splits})
    table["session"] = [f"s{i}" for i in range(len(splits))]
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return path


def test_a_split_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = table_with_split(tmp_path, ["Test", "train", "validation", "train", "test"])
    manifest, _ = build(path, "table")
    assert dict(zip(manifest["scan_id"], manifest["split"], strict=True)) == {
        "sub-a_ses-s0": "test",
        "sub-p0_ses-s1": "train",
        "sub-p1_ses-s2": "val",
        "sub-p2_ses-s3": "train",
        "sub-a_ses-s4": "test",
    }
    write_manifest(manifest, tmp_path / "m.csv")
    assert list(build(tmp_path / "m.csv", "table")[0]["split"]) == list(manifest["split"])


@pytest.mark.parametrize(("word", "said"), [("fold-1", "is 'fold-1'"), ("", "is empty")])
def test_a_split_that_says_something_else_is_refused(tmp_path: Path, word: str, said: str) -> None:
    path = table_with_split(tmp_path, ["train", word, "val", "test", "train"])
    with pytest.raises(ContractError, match=f"split of sub-p0 {said}.*rename the column"):
        build(path, "table")


def test_a_subject_in_two_splits_of_ones_own_is_refused(tmp_path: Path) -> None:
    path = table_with_split(tmp_path, ["train", "val", "test", "train", "test"])
    with pytest.raises(ContractError, match=r"table\.csv: sub-a is in two splits"):
        build(path, "table")


def test_init_counts_the_scans_and_refuses_an_empty_folder(tmp_path: Path) -> None:
    empty, full, study = tmp_path / "empty", tmp_path / "full", tmp_path / "study"
    empty.mkdir()
    touch(full, "1.nii.gz", "2.nii.gz")
    with pytest.raises(ContractError, match=r"no usable T1w image found; expected \.nii"):
        scaffold(study, preset="cpu", input_path=empty, overrides=[], force=False)
    assert not study.exists()
    made = CliRunner().invoke(app, ["init", str(study), "--input", str(full)])
    assert made.exit_code == 0, made.output
    assert "ready. 2 scans found." in made.output


def test_a_file_that_is_neither_image_nor_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(ContractError, match=r"cohort\.xlsx: neither an image"):
        detect_source(path)


def table_of(folder: Path, text: str) -> Path:
    touch(folder, "1.nii", "2.nii")
    (folder / "people.csv").write_text(text)
    return folder / "people.csv"


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


def test_init_says_where_diagnoses_are_others_than_those_compared(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path,group\n1,1.nii,HC\n2,2.nii,MCI\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(people)])
    assert "diagnosis holds HC (1), MCI (1), not CN and AD" in result.output
    own = ["--set", "probe.classification={diagnosis: [HC, MCI]}"]
    again = ["init", str(tmp_path / "own"), "--input", str(people), *own]
    assert "diagnosis holds" not in CliRunner().invoke(app, again).output


def test_init_says_that_there_is_no_diagnosis_to_move_along(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path\n1,1.nii\n2,2.nii\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(people)])
    assert "no diagnosis in the input, and manipulation would move along" in result.output
    with pytest.raises(ContractError, match=r"people\.csv: a file is where a folder is wanted"):
        CliRunner().invoke(
            app, ["init", str(people), "--input", str(people)], catch_exceptions=False
        )


def test_a_split_that_lacks_a_class_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sexes = dict(enumerate("FFFFMMMM", 1))
    touch(tmp_path, *(f"{i}.nii" for i in sexes))
    splits = ["train"] * 4 + ["test"] * 4
    rows = [f"{i},{i}.nii,{sexes[i]},{splits[i - 1]}" for i in sexes]
    people = tmp_path / "people.csv"
    people.write_text("\n".join(["subject,path,sex,split", *rows]) + "\n")
    build(people, "table")
    assert "sex: no F in test, no M in train; probes of it cannot be judged" in caplog.text
    caplog.clear()
    people.write_text(
        people.read_text().replace("1.nii,F", "1.nii,M").replace("5.nii,M", "5.nii,F")
    )
    build(people, "table")
    assert "cannot be judged" not in caplog.text
