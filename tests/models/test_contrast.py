"""A model works on the contrast it was trained on, and on another one if asked."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.applications.inputs import preprocessing_for
from pipeline.encoding.embed import embed_latents
from pipeline.encoding.run import encode_volumes
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.models.inference import load_models
from pipeline.models.model_folder import read_config
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams
from schemas.grid import GridParams
from schemas.manifest import MANIFEST_COLUMNS
from schemas.params import EmbedParams, EncodeParams, PreprocessParams
from stages.cli import app
from tests.support.tiny_models import CPU
from tests.support.volumes import SHAPE


def as_flair(source: Path, out: Path) -> Path:
    """Copy a volume store whose record tells of FLAIR images."""
    shutil.copytree(source, out)
    record = json.loads((out / "zarr.json").read_text())
    attributes = record["attributes"]
    attributes["params"] = {"preprocess": {"contrast": "FLAIR"}}
    attributes.pop("record_sha256")
    attributes["record_sha256"] = digest_of(attributes)
    (out / "zarr.json").write_text(json.dumps(record))
    return out


@pytest.mark.slow
def test_flair_goes_through_models_of_t1w_only_if_asked(
    volumes, autoencoder_path, ldae_path, tmp_path
):
    flair = open_volumes(as_flair(volumes.path, tmp_path / "volumes.zarr"))
    assert (flair.attributes.contrast, volumes.attributes.contrast) == ("FLAIR", "T1w")
    autoencoder = load_autoencoder(autoencoder_path, device=CPU)
    assert read_config(autoencoder_path / "config.json")["contrast"] == "T1w"
    params, out = EncodeParams(chunk_scans=8, precision="fp32"), tmp_path / "latents.zarr"
    told = r"FLAIR images.*trained on T1w.*--set encode.any_contrast=true"
    with pytest.raises(ContractError, match=told):
        encode_volumes(flair, autoencoder, out, params, device=CPU)
    asked = params.model_copy(update={"any_contrast": True})
    encode_volumes(flair, autoencoder, out, asked, device=CPU)
    latents, ldae = open_latents(out), load_ldae(ldae_path, device=CPU)
    assert latents.attributes.contrast == "FLAIR"
    codes = tmp_path / "semantics.zarr"
    with pytest.raises(ContractError, match=r"the LDAE was trained on T1w.*embed.any_contrast"):
        embed_latents(latents, ldae, codes, EmbedParams(), device=CPU)
    embed_latents(latents, ldae, codes, EmbedParams(any_contrast=True), device=CPU)
    assert OpenStore(codes).attributes.contrast == "FLAIR"


@pytest.mark.slow
def test_evaluation_and_applications_refuse_scans_of_another_contrast_too(
    volumes, autoencoder_path, ldae_path, tmp_path
):
    flair = open_volumes(as_flair(volumes.path, tmp_path / "volumes.zarr"))
    params = EvaluateParams(num_inference_steps=3)
    told = r"volumes.zarr: FLAIR images, the LDAE was trained on T1w.*evaluate.any_contrast=true"
    with pytest.raises(ContractError, match=told):
        load_models(autoencoder_path, ldae_path, params, device=CPU, store=flair)
    asked = params.model_copy(update={"any_contrast": True})
    load_models(autoencoder_path, ldae_path, asked, device=CPU, store=flair)
    numbers = dict.fromkeys(("age_years", "months_from_first"))
    cells = dict.fromkeys(MANIFEST_COLUMNS, "x") | numbers | {"split": "test"}
    table = pd.DataFrame(cells, index=[0])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    words = ["--manifest", tmp_path / "manifest.csv", "--volumes", flair.path]
    words += ["--ae", autoencoder_path, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, ["evaluate", "--what", "ae", *map(str, words)])
    assert "--set evaluate.any_contrast=true" in str(result.exception), result.output


@pytest.mark.parametrize("command", ["encode", "embed"])
def test_images_of_another_contrast_are_refused_before_they_are_preprocessed(command, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "sub-1_FLAIR.nii").write_bytes(b"never looked into")
    words = [command, "--input", str(folder), "--out", str(tmp_path / "out.zarr")]
    result = CliRunner().invoke(app, [*words, "--set", "cohort.suffix=FLAIR"])
    assert f"--set {command}.any_contrast=true" in str(result.exception) or (
        command == "embed" and "--set encode.any_contrast=true" in str(result.exception)
    ), (result.output, result.exception)
    assert "images: FLAIR images" in str(result.exception)
    assert not (tmp_path / "out.input").exists()


def test_a_new_image_is_preprocessed_as_the_models_contrast(models):
    grid = mni_grid(GridParams(shape=SHAPE, zooms=3.0))
    of_t1w = replace(models, autoencoder=replace(models.autoencoder, grid=grid))
    flair = replace(models.ldae, config=models.ldae.config | {"contrast": "FLAIR"})
    for some, contrast in ((of_t1w, None), (replace(of_t1w, ldae=flair), "FLAIR")):
        params = preprocessing_for(some, PreprocessParams(), volumes=None, latents=None)
        assert params.contrast == contrast
