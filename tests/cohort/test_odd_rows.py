"""Odd cells, ids and paths of tables: one line or one row each, and the others go on."""

import logging
from pathlib import Path

import pytest

from pipeline.cohort.ingest import MAX_ID
from pipeline.imaging import read
from pipeline.labels.label_parsing import ages_of
from schemas.errors import ContractError, ScanError
from tests.support.imaging_fixtures import save
from tests.support.source_folders import build, touch


def table_of(folder: Path, text: str) -> Path:
    touch(folder, "a.nii", "b.nii", "c.nii", "d.nii", "e.nii")
    (folder / "people.csv").write_text(text)
    return folder / "people.csv"


@pytest.mark.parametrize("cell", ["1e308", "inf", "-inf", "-3", "1e3", "999", "120.5"])
def test_ages_that_nobody_has_are_unknown_and_warned(
    cell: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert ages_of([cell, "nan", "70"], ["a.nii", "b.nii", "c.nii"])[0] == [None, None, 70.0]
    assert f"a.nii ({cell})" in caplog.text
    assert "b.nii" not in caplog.text


def test_months_that_cannot_be_are_unknown_and_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "subject,path,months\n0,a.nii,1e20\n1,b.nii,-5\n2,c.nii,inf\n3,d.nii,nan\n4,e.nii,12\n"
    months = build(table_of(tmp_path, text), "table")[0]["months_from_first"]
    assert months.tolist() == [0, 0, 0, 0, 12]  # the only scan of a person is the first
    assert "expected 0 to 1440, taken as unknown: a.nii (1e20), b.nii (-5), c.nii (inf)" in (
        caplog.text
    )


def test_an_id_that_is_too_long_to_name_files_has_a_row(tmp_path: Path) -> None:
    text = f"subject,path\n{'x' * 300},a.nii\n{'y' * (MAX_ID - 4)},b.nii\n"
    manifest, refused = build(table_of(tmp_path, text), "table")
    assert len(manifest) == 1
    assert list(refused["reason"]) == [f"id of 304 letters, at most {MAX_ID}: it names files"]


@pytest.mark.parametrize("rows", ["0,a.nii,extra,x\n", "1,b.nii\n0,a.nii,extra,x\n"])
def test_a_row_with_more_cells_than_the_header_is_named(tmp_path: Path, rows: str) -> None:
    line = 1 + rows.count("\n")
    with pytest.raises(
        ContractError, match=rf"people\.csv: line {line} has 4 cells, the header 2; put a cell"
    ):
        build(table_of(tmp_path, "subject,path\n" + rows), "table")


@pytest.mark.parametrize("name", ["eid", "ID", "PTID", "RID", "Subject", "Subject ID", "id"])
def test_columns_of_subjects_as_sites_call_them(tmp_path: Path, name: str) -> None:
    manifest, _ = build(table_of(tmp_path, f"{name},path\n7,a.nii\n"), "table")
    assert list(manifest["subject_id"]) == ["sub-7"]


def test_a_column_id_is_the_subject_only_where_none_is_better(tmp_path: Path) -> None:
    text = "ID,Subject,path\n900,7,a.nii\n901,8,b.nii\n"
    assert list(build(table_of(tmp_path, text), "table")[0]["subject_id"]) == ["sub-7", "sub-8"]


def test_a_path_that_is_a_folder_reads_so(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    refused = build(table_of(tmp_path, "subject,path\n0,scans\n1,a.nii\n"), "table")[1]
    assert list(refused["reason"]) == ["is a folder, expected an image"]


def test_a_path_in_a_closed_folder_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir = Path.is_dir

    def refuse(path: Path) -> bool:
        if path.parent.name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    table = table_of(tmp_path, "subject,path\n0,deep/x.nii\n1,a.nii\n")
    monkeypatch.setattr(Path, "is_dir", refuse)
    manifest, refused = build(table, "table")
    assert len(manifest) == 1
    assert list(refused["reason"]) == ["cannot be read (Permission denied)"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_a_file_without_permission_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    if name.endswith("mgz"):
        path.write_bytes(b"x")
    else:
        save(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(read.nib, "load", refuse)
    with pytest.raises(ScanError, match=r"^cannot be read \(Permission denied\)$"):
        read.read_scan(path, max_bytes=10**9)


def test_a_cohort_of_sound_rows_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    table = table_of(tmp_path, "subject,path,age,months\n0,a.nii,70,0\n1,b.nii,71,0\n")
    build(table, "table")
    assert "taken as unknown" not in caplog.text
