"""What a user sets by hand is done, or refused or told with the reason."""

import ast
import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pipeline.models.bundled as bundled
import pipeline.preprocessing.run as preprocessing
from pipeline.models.frozen import load_autoencoder
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes, write_volumes
from schemas.errors import ContractError, ParamsError
from stages.cli import STAGES, TOOLS, app
from stages.requested_settings import READS, SCHEDULED, SPREADS
from tests.support.paths import ROOT
from tests.support.volumes import volume_attributes, volume_row

STAGE_FILES = ROOT / "stages"
HELPERS = {
    "evaluate": ["evaluate_ae.py"],
    "encode": ["encode_input.py"],
    "embed": ["encode_input.py"],
}
"""Files that do a part of what a command does."""
CPU = torch.device("cpu")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def portable(tmp_path, monkeypatch, autoencoder_path):
    """The bundled autoencoder is a tiny one, and the working folder empty."""
    folder = tmp_path / "package" / "ae"
    bundled.export_bundled(autoencoder_path, folder, card="# Card\n")
    monkeypatch.setattr(bundled, "BUNDLED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder with an image; what preprocessing is asked for is kept and put in a store."""
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "a.nii.gz").write_bytes(b"scan")
    asked = []

    def preprocess_cohort(manifest, params, *, out, **_):
        from pipeline.imaging.atlas.mni152 import mni_grid

        asked.append(params)
        row = volume_row(1)
        shape = params.grid.shape
        row = dataclasses.replace(row, volume=np.resize(row.volume, shape))
        attributes = volume_attributes(["sub-a"])
        attributes = attributes.model_copy(update={"grid": mni_grid(params.grid)})
        write_volumes(out, attributes, iter([row]))
        return SimpleNamespace(quarantined=0)

    monkeypatch.setattr(preprocessing, "preprocess_cohort", preprocess_cohort)
    return asked


GRID = "preprocess.grid={shape: [24, 28, 24], zooms: 2.0}"


@pytest.mark.parametrize("way", ["--set", "--params"])
def test_encode_preprocesses_onto_the_grid_that_was_asked_for(portable, scans, tmp_path, way):
    """In place of the autoencoder's own, which then tells of voxels that it was not trained on."""
    (tmp_path / "mine.yaml").write_text("preprocess: {grid: {shape: [24, 28, 24], zooms: 2.0}}\n")
    given = [way, GRID if way == "--set" else "mine.yaml"]
    result = run("encode", "--input", "nifti", "--out", "l.zarr", "--device", "cpu", *given)
    assert result.exit_code == 0, (result.output, result.exception)
    assert scans[0].grid.shape == (24, 28, 24)
    assert scans[0].grid.zooms == 2
    made = open_latents(tmp_path / "l.zarr")
    assert made.attributes.grid.shape == (24, 28, 24)
    assert made.attributes.grid.zooms == (2, 2, 2)
    assert "trained on voxels of 3×3×3 mm, used on 2×2×2 mm" in result.output


def test_encode_without_a_grid_takes_the_autoencoders_own(portable, scans):
    result = run("encode", "--input", "nifti", "--out", "l.zarr", "--device", "cpu")
    own = load_autoencoder(portable, device=CPU).grid
    assert scans[0].grid.shape == own.shape, result.output
    assert scans[0].grid.zooms == 3


def test_a_grid_that_the_autoencoder_cannot_encode_is_refused_with_the_one_it_takes(
    portable, scans, autoencoder_path
):
    odd = GRID.replace("24, 28", "25, 29")
    result = run("encode", "--input", "nifti", "--out", "l.zarr", "--set", odd)
    assert isinstance(result.exception, ContractError)
    assert "multiple" in str(result.exception)
    ae = ["--ae", autoencoder_path]  # trained by the user, for one grid
    result = run("encode", "--input", "nifti", "--out", "l.zarr", *ae, "--set", GRID)
    assert isinstance(result.exception, ContractError)
    assert "24×28×24 of 2×2×2 mm was asked for" in str(result.exception)
    assert "takes 16×24×20 of 3×3×3 mm alone" in str(result.exception)
    assert not scans


def test_a_params_file_that_lies_here_gives_way_to_an_autoencoder_of_one_grid_and_tells(
    portable, scans, tmp_path, autoencoder_path
):
    (tmp_path / "params.yaml").write_text("preprocess: {grid: {shape: [24, 28, 24]}}\n")
    out = ["--out", "l.zarr", "--device", "cpu", "--ae", autoencoder_path]
    result = run("encode", "--input", "nifti", *out)
    assert "takes 16×24×20 of 3×3×3 mm alone" in result.output
    assert "not preprocess.grid (24×28×24" in result.output
    assert scans[0].grid.shape == (16, 24, 20)


def test_what_was_done_to_volumes_before_cannot_be_set_anew(portable, tmp_path):
    attributes = volume_attributes(["sub-a"])
    attributes.params["preprocess"] = {"grid": {"shape": [16, 24, 20], "zooms": 3.0}}
    write_volumes(tmp_path / "v.zarr", attributes, iter([volume_row(1)]))
    command = ["encode", "--input", "v.zarr", "--out", "l.zarr", "--device", "cpu"]
    result = run(*command, "--set", "preprocess.grid.zooms=1.5")
    assert isinstance(result.exception, ParamsError)
    assert "v.zarr was preprocessed with 3.0" in str(result.exception)
    result = run(*command, "--set", "cohort.source=bids")
    assert "v.zarr is a store" in str(result.exception)
    same = ["--set", "preprocess.grid.zooms=3.0", "--set", "preprocess.grid.shape=[16,24,20]"]
    assert run(*command, *same).exit_code == 0
    assert len(open_volumes(tmp_path / "v.zarr")) == 1


def test_columns_set_by_hand_are_those_of_the_table_that_is_encoded(portable, scans, tmp_path):
    (tmp_path / "people.csv").write_text("file_of_scan,who\nnifti/a.nii.gz,P7\n")
    columns = "cohort.columns={path: file_of_scan, subject: who}"
    result = run("encode", "--input", "people.csv", "--out", "l.zarr", "--set", columns)
    assert len(scans) == 1, (result.output, result.exception)
    assert "P7" in (tmp_path / "l.input" / "manifest.csv").read_text()


def test_encoding_warns_of_no_probes(portable, scans, tmp_path):
    """Labels in the input are not judged by it, so a split that lacks a class is no matter."""
    rows = ["path,subject,diagnosis,split"]
    for i, dx in enumerate("CCAAACCC"):
        (tmp_path / "nifti" / f"{i}.nii.gz").write_bytes(f"scan {i}".encode())
        rows.append(f"nifti/{i}.nii.gz,p{i},{dx},{'train' if i < 5 else 'test'}")
    (tmp_path / "people.csv").write_text("\n".join(rows))
    collected = run("cohort", "--input", "people.csv", "--out", "c")
    assert "probes of it cannot be judged" in collected.output
    result = run("encode", "--input", "people.csv", "--out", "l.zarr")
    assert len(scans) == 1, (result.output, result.exception)
    assert "probes" not in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["train-ae", "--manifest", "m.csv", "--volumes", "VOLUMES", "--out", "ae",
             "--set", "train_ae.steps=5"],
            "train_ae.steps: autoencoder.source is bundled, so nothing is trained",
        ),
        (
            ["train-ldae", "--latents", "l.zarr", "--out", "ldae", "--ldm", "models/ldm",
             "--set", "train_ldm.lr=1e-3"],
            "train_ldm.lr: models/ldm is trained already",
        ),
        (
            ["encode", "--input", "VOLUMES", "--out", "l.zarr", "--ae", "AE",
             "--set", "autoencoder.source=train"],
            "autoencoder.source: --ae AE is given too",
        ),
        (
            ["encode", "--input", "VOLUMES", "--out", "l.zarr",
             "--set", "autoencoder.source=train"],
            "run `pipeline train-ae`",
        ),
    ],
)  # fmt: skip
def test_parameters_that_would_be_overruled_are_refused(
    portable, volumes, autoencoder_path, arguments, reason
):
    real = {"VOLUMES": volumes.path, "AE": autoencoder_path}
    result = run(*(real.get(word, word) for word in arguments))
    assert isinstance(result.exception, ParamsError)
    assert reason.replace("AE", str(autoencoder_path)) in str(result.exception)


def test_an_autoencoder_set_by_hand_is_the_one_that_encodes(
    portable, volumes, tmp_path, autoencoder_path
):
    by_hand = ["--set", f"autoencoder={{source: path, path: {autoencoder_path}}}"]
    out = ["--out", tmp_path / "l.zarr", "--device", "cpu"]
    result = run("encode", "--input", volumes.path, *out, *by_hand)
    assert result.exit_code == 0, (result.output, result.exception)
    digest = load_autoencoder(autoencoder_path, device=CPU).digest
    assert open_latents(tmp_path / "l.zarr").attributes.digests["autoencoder"] == digest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "evaluate.max_scans=3"], "--set evaluate.max_scans: plays no part, `pipeline"),
        (["--workers", "2"], "--workers: plays no part in `pipeline train-ldm`"),
        (["--scheduler", "tcp://x:1"], "--scheduler: plays no part in `pipeline train-ldm`"),
    ],
)
def test_options_that_play_no_part_are_told(tmp_path, arguments, told):
    result = run("train-ldm", "--latents", tmp_path / "none", "--out", tmp_path / "o", *arguments)
    assert told in result.output
    assert isinstance(result.exception, ContractError)


def test_every_command_lists_the_sections_that_it_reads():
    for command in (name.replace("-", "_") for name in (*STAGES, *TOOLS)):
        text = (STAGE_FILES / f"{command}.py").read_text()
        for helper in HELPERS.get(command, ()):
            text += (STAGE_FILES / helper).read_text()
        if command in ("init", "report"):
            assert command not in READS
            continue
        tree = ast.parse(text)
        sections = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and re.fullmatch(
                r"(settings\.)?params(\(\))?", ast.unparse(node.value)
            )
        } & {"cohort", "preprocess", "autoencoder", "train_ae", "encode", "train_ldm",
             "train_ldae", "embed", "crossfit", "probe", "evaluate"}  # fmt: skip
        assert sections <= {part.split(".")[0] for part in READS[command]}, command
        assert ("num_workers" in text) == (command in SPREADS), command
        assert ("settings.scheduler" in text) == (command in SCHEDULED), command
