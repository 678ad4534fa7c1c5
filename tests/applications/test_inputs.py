"""Scans by name and images by path: opened, or refused in one line."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.applications.inputs import (
    check_latents,
    preprocessing_for,
    scan_from_file,
    scan_from_store,
)
from pipeline.applications.scan_names import check_names, stem_of
from pipeline.encoding.embed import check_same_autoencoder
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.models.inference import load_models
from pipeline.models.model_folder import CONFIG
from pipeline.stores.latents import open_latents
from pipeline.stores.provenance import check_same_scans
from schemas.errors import ContractError, ParamsError, ScanError
from schemas.evaluation import EvaluateParams
from schemas.grid import GridParams
from schemas.params import PreprocessParams
from tests.support.fake_chain import preprocessed
from tests.support.tiny_models import CPU
from tests.support.volumes import SCAN, SHAPE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-999", "sub-999 not in the store"),
        ("nowhere.nii.gz", "nowhere.nii.gz: no such file"),
        ("unlike-any", r"it has sub-\d+, sub-\d+, sub-\d+ and 17 more \(--verbose"),
    ],
)
def test_scans_that_cannot_be_opened_are_named_before_any_work(latents_path, name, expected):
    with pytest.raises((ContractError, ParamsError), match=expected):
        check_names([name], open_latents(latents_path))


@pytest.mark.slow
def test_volumes_lie_where_the_study_has_them(tmp_path, autoencoder_path, ldae_path, latents_path):
    """Not where the autoencoder was trained."""
    elsewhere = tmp_path / "ae"
    shutil.copytree(autoencoder_path, elsewhere)
    config = json.loads((elsewhere / CONFIG).read_text())
    config["grid"] = {"shape": [8, 8, 8], "affine": np.eye(4).tolist(), "orientation": "RAS"}
    (elsewhere / CONFIG).write_text(json.dumps(config))
    models = load_models(elsewhere, ldae_path, EvaluateParams(), device=CPU)
    latents = open_latents(latents_path)
    assert models.autoencoder.grid == latents.attributes.grid
    check_latents(latents, models)


@pytest.mark.slow
def test_latents_of_another_shape_are_refused(latents_path, models):
    frozen = dataclasses.replace(
        models.ldae, config=models.ldae.config | {"latent_shape": [3, 9, 9, 9]}
    )
    with pytest.raises(ContractError, match=r"latents of .* the LDAE was trained on"):
        check_same_autoencoder(open_latents(latents_path), frozen)


@pytest.mark.slow
def test_a_new_image_gets_the_latent_of_its_volume(tmp_path, monkeypatch, opener, models):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"stands for an image")
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan",
        lambda path, params, device: preprocessed(),
    )
    new = scan_from_file(path, models, PreprocessParams())
    assert (new.scan_id, new.record["qc"]["status"]) == ("head", "pass")
    assert (new.native.native_shape, new.native.intensity_range) == ((17, 25, 21), (5.0, 250.0))
    stored = scan_from_store(SCAN, models, opener.latents, opener.volumes)
    # The store rounds latents to float16; z_0 counts in standard deviations, however small.
    new_mean, stored_mean = models.unstandardise(new.z_0), models.unstandardise(stored.z_0)
    torch.testing.assert_close(new_mean, stored_mean, atol=1e-3, rtol=1e-3)
    syn = PreprocessParams(registration="syn")
    assert scan_from_file(path, models, syn).native is None


@pytest.mark.slow
def test_a_new_image_that_fails_quality_control_is_refused(tmp_path, monkeypatch, models):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"stands for an image")
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan",
        lambda path, params, device: preprocessed("fail"),
    )
    with pytest.raises(ScanError, match=r"head.nii.gz: fails quality control \(brain of 9 ml"):
        scan_from_file(path, models, PreprocessParams())


@pytest.mark.slow
def test_a_new_image_that_cannot_be_read_is_refused(tmp_path, models):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"stands for an image")
    with pytest.raises(ScanError, match=r"head.nii.gz: named as gzip"):
        scan_from_file(path, models, PreprocessParams())


@pytest.mark.slow
def test_a_new_image_is_preprocessed_as_the_store_was(opener, models):
    with pytest.raises(ContractError, match="its grid is not one"):
        preprocessing_for(models, PreprocessParams(), volumes=None, latents=None)
    grid = mni_grid(GridParams(shape=SHAPE, zooms=3.0))
    on_grid = SimpleNamespace(autoencoder=SimpleNamespace(grid=grid, config={}))

    def volumes(zooms):
        grid = GridParams(shape=SHAPE, zooms=zooms)
        recorded = PreprocessParams(bias_field=False, grid=grid).model_dump(mode="json")
        attributes = SimpleNamespace(params={"preprocess": recorded})
        return SimpleNamespace(path=Path("volumes.zarr"), attributes=attributes)

    store = volumes(3.0)
    params = preprocessing_for(on_grid, PreprocessParams(), volumes=store, latents=None)
    assert (params.bias_field, params.grid.shape) == (False, SHAPE)
    with pytest.raises(ContractError, match="preprocessed in another way"):
        preprocessing_for(on_grid, PreprocessParams(), volumes=store, latents=opener.latents)
    with pytest.raises(ContractError, match=r"volumes.zarr: volumes of .* voxels of 2 mm, those"):
        preprocessing_for(on_grid, PreprocessParams(), volumes=volumes(2.0), latents=None)


def test_names_of_files():
    assert stem_of(Path("a/sub-01_T1w.nii.gz")) == "sub-01"
    assert stem_of(Path("scan.v2.MGZ")) == "scan.v2"


@pytest.mark.slow
def test_volumes_of_another_study_are_refused(tmp_path, opener, models, latents_path):
    """They may have the same scan ids, and would be taken for the right ones."""
    other = copy.copy(opener.volumes)
    renewed = [f"{print_}0" for print_ in other.attributes.fingerprints]
    other.attributes = other.attributes.model_copy(update={"fingerprints": renewed})
    latents = open_latents(latents_path)
    with pytest.raises(ContractError, match=f"{SCAN} is not the volume that its latent"):
        scan_from_store(SCAN, models, latents, other)
    with pytest.raises(ContractError, match=r"20 of 20 scans"):
        check_same_scans(latents, other)
    check_same_scans(latents, opener.volumes)
