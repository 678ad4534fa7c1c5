"""Participants one by one, then as a group."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.bids_app.group_level import gather
from pipeline.bids_app.participant_level import run_participants, workers_within
from pipeline.cohort.manifest import read_manifest
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError, PipelineError
from schemas.params import CohortParams
from stages.cli import app
from tests.support.bids_dataset import SCANS
from tests.support.command_line import environment

EVERYONE = ("sub-01", "sub-02", "sub-03")


def test_participants_become_derivatives_and_then_there_is_nothing_to_do(request_of, fake):
    summary = run_participants(request_of("sub-01", "sub-03"), "cpu")
    assert (summary.scans, summary.done_before, summary.failed) == (3, 0, {})
    assert len(fake.calls) == 3
    out = request_of().out_dir
    people = pd.read_csv(out / "participants.tsv", sep="\t")["participant_id"].tolist()
    assert people == ["sub-01", "sub-03"]
    assert (out / "sub-03/ses-b/anat").is_dir()
    again = run_participants(request_of("sub-03", "sub-02"), "cpu")
    assert (again.scans, again.done_before) == (3, 1)
    assert fake.calls[3:] == ["sub-02_T1w.nii.gz"]
    people = pd.read_csv(out / "participants.tsv", sep="\t")["participant_id"].tolist()
    assert people == list(EVERYONE)


def test_a_session_at_a_time_ends_as_all_at_once(request_of, fake):
    run_participants(request_of("sub-03", sessions=("ses-a",)), "cpu")
    assert fake.calls == ["sub-03_ses-a_T1w.nii.gz"]
    run_participants(request_of("sub-03", sessions=("ses-b",)), "cpu")
    assert fake.calls[1:] == ["sub-03_ses-b_T1w.nii.gz"]
    store = OpenStore(request_of().work / "sub-03" / "data" / "semantics.zarr")
    assert store.attributes.scan_ids == ["sub-03_ses-a", "sub-03_ses-b"]


def test_a_changed_image_is_done_again(request_of, fake, bids):
    run_participants(request_of("sub-01", "sub-02"), "cpu")
    image = nib.Nifti1Image(np.full((9, 10, 11), 5, np.uint8), np.eye(4))
    image.to_filename(bids / "sub-01/anat/sub-01_T1w.nii.gz")
    summary = run_participants(request_of("sub-01", "sub-02"), "cpu")
    assert summary.done_before == 1
    assert fake.calls[2:] == ["sub-01_T1w.nii.gz"]


def test_one_participant_without_a_brain_stops_no_other(request_of, fake, bids):
    image = nib.Nifti1Image(np.full((9, 10, 11), 9, np.uint8), np.eye(4))
    image.to_filename(bids / "sub-01/anat/sub-01_T1w.nii.gz")
    (bids / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    summary = run_participants(request_of(*EVERYONE), "cpu")
    assert set(summary.failed) == {"sub-01", "sub-02"}
    assert "no scan passed" in summary.failed["sub-01"]
    assert "no T1w image was found" in summary.failed["sub-02"]
    assert summary.scans == 2


def test_a_group_holds_the_rows_of_all_participants(request_of, fake, bids):
    for name in EVERYONE:
        run_participants(request_of(name), "cpu")
    work = request_of().work
    files = gather(bids, work, CohortParams())
    manifest = read_manifest(files.manifest)
    assert manifest["scan_id"].tolist() == [name.replace("/", "_") for name in SCANS]
    assert manifest["age_years"].tolist() == [70, 71, 72, 72]
    data = files.volumes.parent
    for store, arrays in (
        ("volumes", ["volume", "native_to_mni"]),
        ("latents", ["posterior_mean", "posterior_logvar"]),
        ("semantics", ["y_sem"]),
    ):
        merged = OpenStore(data / f"{store}.zarr", kind=store)
        for row, scan in enumerate(merged.attributes.scan_ids):
            one = OpenStore(work / scan.split("_")[0] / "data" / f"{store}.zarr")
            for name in arrays:
                at = one.row_of[scan]
                np.testing.assert_array_equal(merged.read(name, row), one.read(name, at))
        if store == "latents":
            assert len(merged.encode_settings) == len(SCANS)
    before = (data / "latents.zarr" / "zarr.json").stat().st_mtime_ns
    gather(bids, work, CohortParams())
    assert (data / "latents.zarr" / "zarr.json").stat().st_mtime_ns == before


def test_participants_made_otherwise_are_not_mixed(request_of, fake, bids):
    run_participants(request_of("sub-01"), "cpu")
    request = request_of("sub-02")
    other = request.params.preprocess.model_copy(update={"bias_field": False})
    params = request.params.model_copy(update={"preprocess": other})
    run_participants(replace(request, params=params), "cpu")
    with pytest.raises(ContractError, match=r"not made as .*same parameters and models"):
        gather(bids, request.work, CohortParams())


def test_a_group_of_nobody_is_refused(bids, tmp_path):
    with pytest.raises(ContractError, match="no participant is finished here; run the participant"):
        gather(bids, tmp_path / "work", CohortParams())


def test_memory_bounds_the_workers():
    assert workers_within(8, None) == 8
    assert workers_within(8, 7000) == 3
    assert workers_within(8, 500) == 1


def words_of(request) -> list[str]:
    models = ("--ae", request.autoencoder, "--ldae", request.ldae)
    folders = (request.bids_dir, request.out_dir, "participant", "-w", request.work)
    exact = ("--set", "encode.precision=fp32", "--set", "encode.chunk_scans=8")
    return [str(w) for w in ("bids", *folders, *models, *exact, "--device", "cpu")]


def test_the_command_takes_what_users_of_other_apps_type(request_of, fake, tmp_path):
    request = request_of()
    more = ["--participant-label", "01", "sub-02", "--n_cpus", "1", "--mem-mb", "4000"]
    result = CliRunner().invoke(app, [*words_of(request), *more, "--skip-bids-validation"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "2 scans of 2 participants (0 done before)" in result.output
    words = [str(request.bids_dir), str(request.out_dir), "group", "-w", str(request.work)]
    result = CliRunner().invoke(app, ["bids", *words, "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert (request.out_dir / "report.html").is_file()
    assert "report.html" in (request.out_dir / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"out_dir": "bids"}, "is the dataset itself"),
        ({"out_dir": "bids/sub-01"}, "lies among the subjects"),
        ({"bids_dir": "nowhere"}, "no such folder"),
        ({"autoencoder": "nowhere"}, "expected a model folder"),
        ({"work": "bids"}, "lies in the dataset"),
        ({"work": "bids/work"}, "lies in the dataset"),
        ({"work": "out"}, "lies in the output folder"),
        ({"work": "out/work"}, "lies in the output folder"),
    ],
)
def test_wrong_folders_are_one_line(request_of, tmp_path, change, told):
    change = {name: tmp_path / value for name, value in change.items()}
    result = CliRunner().invoke(app, words_of(replace(request_of(), **change)))
    assert isinstance(result.exception, PipelineError)
    assert told in str(result.exception)
    assert "\n" not in str(result.exception)


def test_derivatives_of_the_dataset_are_a_place_for_ours(request_of, fake, bids):
    request = replace(request_of("sub-01"), out_dir=bids / "derivatives" / "ldae")
    assert run_participants(request, "cpu").failed == {}
    links = json.loads((request.out_dir / "dataset_description.json").read_text())
    assert links["DatasetLinks"] == {"raw": "../.."}
    assert run_participants(request, "cpu").done_before == 1


def test_nothing_to_do_loads_no_network_library(request_of, fake):
    """What makes a call without work short: neither torch nor ANTs is imported."""
    run_participants(request_of("sub-01"), "cpu")
    words = [*words_of(request_of()), "--participant-label", "01"]
    code = (
        "import sys; from typer.testing import CliRunner; from stages.cli import app;"
        "r = CliRunner().invoke(app, sys.argv[1:]); print(r.output);"
        "print(sorted({'torch', 'monai', 'ants', 'deepbet', 'distributed'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "(1 done before)" in result.stdout, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
