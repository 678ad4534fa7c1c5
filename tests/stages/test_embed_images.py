"""`pipeline embed --input`: from image files to y_sem by one command and the bundled models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pipeline.models.bundled as bundled
import pipeline.models.bundled_ldae as bundled_ldae
from pipeline.models.frozen import load_diffusion
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import open_volumes
from pipeline.training.autoencoder import train_autoencoder
from pipeline.training.latent_diffusion import train_denoiser, train_ldae
from schemas.errors import ContractError
from stages.cli import app
from tests.support.command_line import CHEAP, save_brain
from tests.support.made_once import MadeOnce
from tests.support.tiny_models import CPU, LDAE, LDM, TINY_AE

FAST = [word for value in CHEAP[:3] for word in ("--set", f"preprocess.{value}")]
GRID = ["--set", "preprocess.grid.shape=[28,32,28]", "--set", "preprocess.grid.zooms=6"]


def run(*arguments: object):
    words = [str(a) for a in arguments]
    return CliRunner().invoke(app, [*words, "--device", "cpu", "--workers", "1"])


def make_package(folder: Path) -> Path:
    """Train a tiny autoencoder and LDAE on six brains of the grid, as if for the package."""
    for seed in range(6):
        save_brain(folder / "nifti" / f"sub-{seed:02d}.nii.gz", seed)
    manifest, volumes = folder / "cohort" / "manifest.csv", folder / "volumes.zarr"
    tables = ("--qc", folder / "qc.csv", "--quarantine", folder / "quarantine.csv")
    for words in (
        ("cohort", "--input", folder / "nifti", "--out", folder / "cohort"),
        ("preprocess", "--manifest", manifest, "--out", volumes, *tables, *FAST, *GRID),
    ):
        result = run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
    store, package = open_volumes(volumes), folder / "package"
    ids = store.attributes.scan_ids
    split = {"train": ids[:5], "val": ids[5:], "test": []}
    train_autoencoder(store, split, TINY_AE, package / "ae", device=CPU)
    config = json.loads((package / "ae/config.json").read_text())
    (package / "ae/config.json").write_text(json.dumps(config | {"portable": True}))
    result = run("encode", "--input", volumes, "--ae", package / "ae", "--out", folder / "l.zarr")
    assert result.exit_code == 0, (result.output, result.exception)
    latents = open_latents(folder / "l.zarr")
    train_denoiser(latents, split, LDM, folder / "ldm", device=CPU)
    frozen = load_diffusion(folder / "ldm", device=CPU)
    train_ldae(latents, split, frozen, LDAE, folder / "trained", device=CPU)
    bundled_ldae.export_bundled_ldae(folder / "trained", package / "ldae")
    return package


@pytest.fixture
def images(tmp_path, monkeypatch, made_once: MadeOnce):
    """An empty folder with two new images in nifti/, and a package with tiny models."""
    package = made_once("package", make_package)
    monkeypatch.setattr(bundled, "BUNDLED", package / "ae")
    monkeypatch.setattr(bundled_ldae, "BUNDLED_LDAE", package / "ldae")
    monkeypatch.chdir(tmp_path)
    for seed in (11, 12):
        save_brain(tmp_path / "nifti" / f"sub-{seed}.nii.gz", seed)
    return tmp_path


def embed(source: str, out: str, *more: str):
    return run("embed", "--input", source, "--out", out, *FAST, *more)


def y_sem(path: str):
    store = OpenStore(Path(path), kind="semantics")
    return store.attributes.scan_ids, store.read("y_sem")


@pytest.mark.slow
def test_new_images_are_embedded_by_one_command_and_kept_for_the_next(images):
    result = embed("nifti", "y.zarr")
    assert result.exit_code == 0, (result.output, result.exception)
    for which in ("LDAE: the one", "autoencoder: the one for 3 mm"):
        assert f"{which} bundled with the package" in result.output
    ids, codes = y_sem("y.zarr")
    assert (len(ids), codes.shape, np.isfinite(codes).all()) == (2, (2, 12), True)
    latents = open_latents(images / "y.input" / "latents.zarr")
    assert latents.attributes.grid.shape == (28, 32, 28)
    save_brain(images / "nifti" / "sub-13.nii.gz", 13)
    again = embed("nifti", "y.zarr")
    assert "3 scans, 1 encoded now, 2 from before" in again.output, again.exception
    more, others = y_sem("y.zarr")
    assert more[:2] == ids
    assert np.array_equal(others[:2], codes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bids", "people.csv"])
def test_a_dataset_or_a_table_of_scans_is_embedded_too(images, kind):
    if kind == "bids":
        target = images / "bids/sub-11/anat/sub-11_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        shutil.copy(images / "nifti/sub-11.nii.gz", target)
        about = {"Name": "two", "BIDSVersion": "1.8.0"}
        (images / "bids/dataset_description.json").write_text(json.dumps(about))
    else:
        (images / kind).write_text("subject,path\n11,nifti/sub-11.nii.gz\n")
    result = embed(kind, "y.zarr")
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(y_sem("y.zarr")[0]) == 1


@pytest.mark.slow
def test_a_smaller_grid_is_taken_and_one_that_does_not_fit_is_refused_first(images):
    smaller = embed("nifti", "y.zarr", "--set", "preprocess.grid={shape: [20, 24, 20], zooms: 6}")
    assert smaller.exit_code == 0, (smaller.output, smaller.exception)
    odd = embed("nifti", "z.zarr", "--set", "preprocess.grid={shape: [24, 28, 24], zooms: 6}")
    assert isinstance(odd.exception, ContractError)
    assert "shorter by a multiple of 8 voxels alone" in str(odd.exception)
    assert "28×32×28 of 6×6×6 mm" in str(odd.exception)
    assert not (images / "z.input").exists()


@pytest.mark.slow
def test_params_that_lie_here_give_way_to_the_grid_of_the_ldae_and_it_is_told(images):
    (images / "params.yaml").write_text("preprocess: {grid: {shape: [56, 72, 64], zooms: 3}}\n")
    result = embed("nifti", "y.zarr")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "works on 28×32×28 of 6×6×6 mm, not on preprocess.grid of params.yaml" in result.output


@pytest.mark.slow
def test_an_autoencoder_of_another_study_is_refused_with_the_way_to_the_bundled_one(images):
    shutil.copytree(bundled.BUNDLED, images / "models" / "ae")
    config = json.loads((bundled_ldae.BUNDLED_LDAE / "config.json").read_text())
    other = images / "ldae"
    shutil.copytree(bundled_ldae.BUNDLED_LDAE, other)
    (other / "config.json").write_text(json.dumps(config | {"autoencoder_digest": "another"}))
    result = embed("nifti", "y.zarr", "--ldae", str(other))
    assert isinstance(result.exception, ContractError)
    assert "--set autoencoder.source=bundled" in str(result.exception)
    assert not (images / "y.input").exists()
