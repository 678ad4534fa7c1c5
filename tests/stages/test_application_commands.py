"""The five application commands write their files, and a mistake is one line."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.models.direction import write_directions
from pipeline.models.model_folder import CONFIG
from stages.cli import app
from tests.support.volumes import OTHER, SCAN, write_manifest_of


@pytest.fixture
def invoke(autoencoder_path, ldae_path, latents_path, volumes):
    def run(command, *arguments):
        models = ["--ae", str(autoencoder_path), "--ldae", str(ldae_path), "--steps", "3"]
        stores = ["--latents", str(latents_path), "--volumes", str(volumes.path)]
        options = [*models, *([] if command == "generate" else stores), "--quiet"]
        return CliRunner().invoke(app, [command, *arguments, *options])

    return run


@pytest.fixture
def directions(tmp_path, ldae_path, direction):
    """Write the direction as `pipeline probe` does."""
    digest = json.loads((ldae_path / CONFIG).read_text())["weights_sha256"]
    path = tmp_path / "directions.json"
    write_directions(path, {"diagnosis": direction}, digests={"ldae": digest})
    return path


def assert_written(folder, command, count):
    """Assert so many images, and records that name them and the command."""
    assert len(list(folder.glob("*.nii.gz"))) == count
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        assert record["command"] == command
        assert all((folder / made["file"]).is_file() for made in record["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "count"),
    [
        ("reconstruct", ["--scan", SCAN, "--space", "native"], 1),
        ("vary", ["--scan", SCAN, "--count", "2", "--seed", "4"], 2),
        ("generate", ["--count", "2"], 2),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--alpha", "0:1:2"], 2),
    ],
)
def test_commands_write_their_files(tmp_path, invoke, command, arguments, count):
    result = invoke(command, *arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, (result.output, result.exception)
    assert_written(tmp_path / "out", command, count)


@pytest.mark.slow
def test_scans_may_be_listed_in_a_file(tmp_path, invoke):
    (tmp_path / "list.txt").write_text(f"{SCAN}  # a comment\n\n{OTHER}\n")
    listed, out = str(tmp_path / "list.txt"), tmp_path / "out"
    result = invoke("reconstruct", "--list", listed, "--out", str(out))
    assert result.exit_code == 0, (result.output, result.exception)
    assert_written(out, "reconstruct", 2)


@pytest.mark.slow
def test_a_scan_is_moved_along_a_direction_of_the_probe(tmp_path, invoke, directions):
    along = ["--direction", "diagnosis:AD", "--scale", "-1:1:3", "--directions", str(directions)]
    out = tmp_path / "out"
    result = invoke("manipulate", "--scan", SCAN, *along, "--out", str(out))
    assert result.exit_code == 0, (result.output, result.exception)
    assert_written(out, "manipulate", 3)


@pytest.mark.slow
def test_months_become_a_place_between_the_visits(tmp_path, invoke, split):
    months = ["--months", "9", "--manifest", str(write_manifest_of(tmp_path, split))]
    out = tmp_path / "out"
    result = invoke("interpolate", "--a", SCAN, "--b", OTHER, *months, "--out", str(out))
    assert result.exit_code == 0, (result.output, result.exception)
    (record,) = out.glob("*.json")
    (output,) = json.loads(record.read_text())["outputs"]
    assert (output["alpha"], output["months"]) == (0.5, 9.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("reconstruct", [], "no scan given"),
        ("reconstruct", ["--input", "README.md"], "expected an image file"),
        ("reconstruct", ["--list", "nowhere.txt"], "nowhere.txt: not a readable"),
        ("manipulate", ["--scan", SCAN, "--direction", "x", "--scale", "1:2"], "--scale '1:2'"),
        ("interpolate", ["--a", SCAN, "--b", SCAN], "expected two scans"),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--alpha", "2"], "pipeline forecast"),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--months", "2"], "give the --manifest"),
        (
            "interpolate",
            ["--a", SCAN, "--b", OTHER, "--months", "2", "--alpha", "0"],
            "both given; use one",
        ),
        ("generate", ["--method", "prior"], "give --semantics and --manifest"),
    ],
)
def test_mistakes_are_one_line(tmp_path, invoke, command, arguments, expected):
    result = invoke(command, *arguments, "--out", str(tmp_path / "out"))
    assert expected in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
