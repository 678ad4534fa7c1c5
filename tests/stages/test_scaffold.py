"""`pipeline init` looks at the scans that a study is started with."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.errors import ContractError, ParamsError
from stages.cli import app
from stages.params_file import load_params
from stages.scaffold import next_step, preset_file, scaffold
from tests.support.source_folders import table_of, touch


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


@pytest.mark.slow
def test_init_says_where_diagnoses_are_others_than_those_compared(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path,group\n1,1.nii,HC\n2,2.nii,MCI\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(people)])
    assert "diagnosis holds HC (1), MCI (1), not CN and AD" in result.output
    own = ["--set", "probe.classification={diagnosis: [HC, MCI]}"]
    again = ["init", str(tmp_path / "own"), "--input", str(people), *own]
    assert "diagnosis holds" not in CliRunner().invoke(app, again).output


@pytest.mark.slow
def test_init_says_that_there_is_no_diagnosis_to_move_along(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path\n1,1.nii\n2,2.nii\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(people)])
    assert "no diagnosis in the input, and manipulation would move along" in result.output
    with pytest.raises(ContractError, match=r"people\.csv: a file is where a folder is wanted"):
        CliRunner().invoke(
            app, ["init", str(people), "--input", str(people)], catch_exceptions=False
        )


def test_a_study_of_published_weights_is_told_to_import_and_not_to_train(tmp_path: Path) -> None:
    people = table_of(tmp_path, "subject,path,group\n1,1.nii,CN\n2,2.nii,CN\n")
    words = ["init", str(tmp_path / "study"), "--preset", "published", "--input", str(people)]
    said = CliRunner().invoke(app, words)
    assert "diagnosis holds" not in said.output  # the imported probe has its own two classes
    (last,) = [line for line in said.output.splitlines() if "ready." in line]
    assert "import-ae autoencoderkl.pth --zooms 1.5 --shape 128 160 128" in last
    assert "import-ldae --decoder decoder.pth --encoder encoder.pth --ae models/ae" in last
    assert "no dvc repro" in last
    assert next_step(tmp_path / "own", "demo") == f"cd {tmp_path / 'own'} && dvc repro"


def test_a_resolution_keeps_the_field_of_view_and_takes_the_autoencoder_of_its_size(tmp_path):
    words = ["init", str(tmp_path / "study"), "--preset", "cpu", "--resolution", "1.5"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    params = load_params(tmp_path / "study" / "params.yaml", [])
    assert params.preprocess.grid.shape == (128, 160, 128)
    assert params.preprocess.grid.zooms == 1.5
    assert params.cohort.phantom.zooms == 1.5, "heads are no coarser than the grid"
    assert params == load_params(preset_file("cpu-1.5"), ["cohort.phantom.zooms=1.5"]).model_copy(
        update={"train_ae": params.train_ae}
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--resolution", "0.3"], "expected 0.8 to 4 mm"),
        (["--resolution", "2", "--set", "preprocess.grid.zooms=3"], "leave one of them out"),
    ],
)
def test_a_resolution_out_of_range_or_beside_a_grid_is_refused(tmp_path, more, told):
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), *more])
    assert isinstance(result.exception, ParamsError)
    assert told in str(result.exception)
    assert not (tmp_path / "study").exists()
