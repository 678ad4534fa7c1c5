"""Calls that were stopped, repeated, shared, or pointed at the wrong place."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.bids_export import export as module
from pipeline.bids_export import pictures
from pipeline.bids_export.export import export_bids
from pipeline.runtime.digests import digest_file
from schemas.errors import ContractError
from stages.cli import app
from tests.support.export_study import (
    VISITS,
    files_of,
    head,
    make_study,
    write_counterfactuals,
    write_stores,
)
from tests.support.plain_pictures import draw_nothing


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    draw_nothing(monkeypatch)


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): digest_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_nothing_to_do_touches_nothing(study, tmp_path):
    out = tmp_path / "out"
    assert export_bids(files_of(study), out).written == 3
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".tables.lock"}
    assert export_bids(files_of(study), out).written == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".tables.lock"} == before


def test_a_stopped_call_leaves_whole_files_and_goes_on(study, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    export_bids(files_of(study), whole)
    expected = content_of(whole)
    real, calls = module.write_scan, []

    def stopped(task):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(module, "write_scan", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_bids(files_of(study), out)
    assert content_of(out).items() <= expected.items()
    assert not list(out.rglob("*.partial"))
    monkeypatch.setattr(module, "write_scan", real)
    assert export_bids(files_of(study), out).written == 1
    assert content_of(out) == expected


@pytest.mark.slow
def test_worker_processes_write_the_same(study, tmp_path, monkeypatch):
    monkeypatch.undo()  # child processes draw
    export_bids(files_of(study), tmp_path / "one")
    export_bids(files_of(study), tmp_path / "two", workers=2)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_new_verdict_is_written_to_its_participant_alone(study, tmp_path):
    out = tmp_path / "out"
    export_bids(files_of(study), out)
    table = pd.read_csv(study / "data" / "qc.csv", dtype=str)
    table.loc[table["scan_id"] == "sub-02_ses-M00", ["status", "reasons"]] = ["warn", "moved"]
    table.to_csv(study / "data" / "qc.csv", index=False)
    assert export_bids(files_of(study), out).written == 1
    assert "moved" in (out / "sub-02.html").read_text()
    assert "moved" in (out / "index.html").read_text()


def test_participants_of_other_calls_stay_until_their_folder_goes(study, tmp_path):
    out = tmp_path / "out"
    export_bids(files_of(study), out)
    other = tmp_path / "other"
    other.mkdir()
    second = make_study(other)
    _rename_people(second)
    export_bids(files_of(second), out)
    people = pd.read_csv(out / "participants.tsv", sep="\t")["participant_id"].tolist()
    assert people == ["sub-01", "sub-02", "sub-11", "sub-12"]
    shutil.rmtree(out / "sub-01")
    (out / "sub-01.html").unlink()
    export_bids(files_of(second), out)
    for table in ("participants.tsv", "phenotype/ldae_qc_ses-M00.tsv"):
        assert "sub-01" not in pd.read_csv(out / table, sep="\t")["participant_id"].tolist()


def _rename_people(study: Path) -> None:
    """Make other people of a study's scans."""
    data = study / "data"
    for path in (data / "cohort" / "manifest.csv", data / "qc.csv"):
        path.write_text(path.read_text().replace("sub-0", "sub-1"))
    for store in ("volumes.zarr", "semantics.zarr"):
        shutil.rmtree(data / store)
    write_stores(data, [f"{s.replace('sub-0', 'sub-1')}_{visit}" for s, visit in VISITS])


def test_one_damaged_participant_stops_no_other(study, tmp_path, monkeypatch):
    real = module.write_scan

    def damaged(task):
        if task.names.participant == "sub-01":
            raise ContractError("volume is damaged")
        return real(task)

    monkeypatch.setattr(module, "write_scan", damaged)
    summary = export_bids(files_of(study), tmp_path / "out")
    assert summary.failed == ("sub-01",)
    assert (tmp_path / "out" / "sub-02.html").is_file()


def test_without_participants_tsv_people_are_those_of_the_manifest(study, tmp_path):
    (tmp_path / "bids" / "participants.tsv").unlink()
    out = tmp_path / "out"
    export_bids(files_of(study), out)
    table = pd.read_csv(out / "participants.tsv", sep="\t", dtype=str)
    assert table.columns.tolist() == ["participant_id", "age", "sex", "diagnosis"]
    assert table["age"].tolist() == ["89+", "89+"]


def test_a_scan_is_shown_near_its_brain_alone(study, tmp_path, monkeypatch):
    """The bright shell, 16 mm and more from the brain, stands for a face."""
    shown = []
    monkeypatch.setattr(
        pictures, "sheet_png", lambda volume, *_, **__: shown.append(volume) or b"png"
    )
    image = tmp_path / "bids" / "sub-01" / "ses-M00" / "anat" / "sub-01_ses-M00_T1w.nii.gz"
    assert head(0)[0].max() == 900
    assert pictures._on_file(image, head(0)[1], 10**9, "title") == b"png"
    assert 0 < shown[0].max() <= 500


def refusal(study: Path, out: Path, **more: object) -> str:
    with pytest.raises(ContractError) as error:
        export_bids(files_of(study), out, **more)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_places_that_are_none_for_a_derivative_are_refused(study, tmp_path):
    bids, other = tmp_path / "bids", tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    assert "is the dataset itself; give another folder, such as" in refusal(study, bids)
    assert "lies among the subjects" in refusal(study, bids / "sub-01" / "out")
    assert "holds other files" in refusal(study, other)
    assert "a file is where a folder is wanted" in refusal(study, other / "thesis.tex")
    assert (other / "thesis.tex").read_text() == "mine"
    assert not (other / "dataset_description.json").exists()


def test_codes_of_two_models_are_not_mixed(study, tmp_path):
    out = tmp_path / "out"
    export_bids(files_of(study), out)
    for path in (out / "phenotype").glob("ldae_ysem*.json"):
        content = json.loads(path.read_text())
        content["MeasurementToolMetadata"]["Description"] = "of another"
        path.write_text(json.dumps(content))
    assert "of another model or contrast; remove the ldae_ysem* there" in refusal(study, out)


def test_folders_without_counterfactuals_are_refused(study, tmp_path):
    native = write_counterfactuals(tmp_path / "native", space="native")
    (tmp_path / "empty").mkdir()
    for folder, found in ((native, "native space alone"), (tmp_path / "empty", "found none")):
        assert found in refusal(study, tmp_path / "out", counterfactuals=[folder])
    assert "no such folder" in refusal(
        study, tmp_path / "out", counterfactuals=[tmp_path / "nowhere"]
    )


def test_the_command_says_what_it_wrote(study, tmp_path, monkeypatch):
    monkeypatch.chdir(study)
    words = ["export-bids", "--study", ".", "--out", "derivatives/ldae", "--workers", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "derivatives/ldae: 3 scans, 3 written now" in result.output
    links = json.loads((study / "derivatives/ldae/dataset_description.json").read_text())
    assert links["DatasetLinks"] == {"raw": "../../../bids"}


def test_a_folder_that_is_no_study_is_named(tmp_path):
    result = CliRunner().invoke(
        app, ["export-bids", "--study", str(tmp_path / "no"), "--out", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, ContractError)
    assert "no such manifest" in str(result.exception)
    assert not (tmp_path / "out").exists()
