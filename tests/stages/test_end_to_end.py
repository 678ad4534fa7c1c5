"""The whole study on eight tiny phantom subjects: run, run again, damage, run again."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline.stores.latents import open_latents
from stages.cli import STAGES
from tests.support.tiny_study import FIRST_RUN, repro, run


def stages_run(output: str) -> list[str]:
    return [
        name.replace("-", "_")
        for name in STAGES
        if f"'{name.replace('-', '_')}':"
        in "".join(
            line for line in output.splitlines(keepends=True) if line.startswith("Running stage")
        )
    ]


@pytest.fixture(scope="module")
def study(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("end-to-end") / "study"
    shutil.copytree(tiny_study, copy, symlinks=True)
    return copy


@pytest.mark.slow
def test_all_eleven_stages_run_then_nothing_then_only_what_is_missing(study, tiny_study):
    first = (tiny_study.parent / FIRST_RUN).read_text()
    assert stages_run(first) == [name.replace("-", "_") for name in STAGES]
    _check_results(study)
    assert stages_run(repro(study)) == []

    before = open_latents(study / "data" / "latents.zarr").digest
    shutil.rmtree(study / "data" / "latents.zarr")
    again = stages_run(repro(study))
    assert again[0] == "encode"
    assert not {"cohort", "preprocess", "train_ae"} & set(again)
    assert open_latents(study / "data" / "latents.zarr").digest == before


def _check_results(study: Path) -> None:
    manifest = pd.read_csv(study / "data" / "cohort" / "manifest.csv", dtype=str)
    quarantine = pd.read_csv(study / "data" / "quarantine.csv", dtype=str)
    store = open_latents(study / "data" / "latents.zarr")
    assert manifest["subject_id"].nunique() == 8
    assert len(store) + len(quarantine) == len(manifest)
    assert manifest.groupby("subject_id")["split"].nunique().eq(1).all()
    evaluate = json.loads((study / "reports" / "evaluate" / "metrics.json").read_text())
    assert {"ae", "ldae", "lddim", "ldae_y_sem_only"} <= set(evaluate["reconstruction"])
    html = (study / "reports" / "report.html").read_text()
    assert 'src="http' not in html
    assert len(html) > 50_000


@pytest.mark.slow
def test_encode_takes_a_plain_folder_of_images_and_quarantines_bad_ones(study, tmp_path):
    scans = sorted((study / "data" / "cohort" / "bids").rglob("*_T1w.nii.gz"))[:2]
    folder = tmp_path / "nifti"
    folder.mkdir()
    for scan in scans:
        shutil.copy(scan, folder)
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    out = tmp_path / "latents.zarr"
    encode = ("pipeline", "encode", "--input", "nifti", "--ae", str(study / "models" / "ae"))
    result = run(*encode, "--out", "latents.zarr", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(open_latents(out)) == 2
    assert "2 encoded now" in result.stdout
    refused = pd.read_csv(tmp_path / "latents.input" / "quarantine.csv", dtype=str)
    assert len(refused) == 1
    assert "broken" in refused["path"][0]
    again = run(*encode, "--out", "latents.zarr", "--strict", cwd=tmp_path)
    assert again.returncode == 1
    assert "0 encoded now" in again.stdout
