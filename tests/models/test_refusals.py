"""LdaeInference, directions and codes that do not belong together are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pipeline.diffusion.gain_fit import MOST_GAIN
from pipeline.encoding.embed import embed_latents
from pipeline.models.direction import Direction, read_direction, write_directions
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.models.inference import load_models
from pipeline.models.model_folder import CONFIG, WEIGHTS, finished_metrics
from pipeline.runtime.digests import digest_file
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.provenance import check_same_latents
from schemas.errors import ContractError, ParamsError
from schemas.evaluation import EvaluateParams
from schemas.params import EmbedParams
from tests.support.tiny_models import CPU
from tests.support.volumes import SCAN

FITTED = Direction(np.array([0.6, 0.8]), np.zeros(2), np.ones(2), 1.3, "diagnosis:AD")


@pytest.fixture
def directions(tmp_path):
    write_directions(tmp_path / "directions.json", {"diagnosis": FITTED}, digests={"ldae": "one"})
    return tmp_path / "directions.json"


def test_a_direction_comes_back_as_written(directions):
    read = read_direction(directions, "diagnosis:AD", ldae_digest="one")
    np.testing.assert_array_equal(read.weight, FITTED.weight)
    assert (read.spread, read.towards) == (1.3, "diagnosis:AD")
    assert read_direction(directions, "diagnosis", ldae_digest="one").spread == 1.3
    assert read.pattern is None


def test_a_pattern_comes_back_and_one_of_another_length_is_refused(tmp_path):
    path = tmp_path / "directions.json"
    pattern = np.array([1.1, 0.8])
    for values, expected in ((pattern, None), (np.ones(3), "pattern 3; expected one length")):
        saved = dataclasses.replace(FITTED, pattern=values)
        write_directions(path, {"diagnosis": saved}, digests={"ldae": "one"})
        if expected is None:
            read = read_direction(path, "diagnosis", ldae_digest="one")
            np.testing.assert_array_equal(read.step, pattern)
            np.testing.assert_array_equal(read.of_weights.step, FITTED.step)
        else:
            with pytest.raises(ContractError, match=expected):
                read_direction(path, "diagnosis", ldae_digest="one")


@pytest.mark.parametrize("name", ["bin:dx", "bin:dx:1"])
def test_a_target_may_have_a_colon_in_its_name(tmp_path, name):
    path = tmp_path / "odd.json"
    odd = dataclasses.replace(FITTED, towards="bin:dx:1")
    write_directions(path, {"bin:dx": odd}, digests={"ldae": "one"})
    assert read_direction(path, name, ldae_digest="one").towards == "bin:dx:1"


@pytest.mark.parametrize(
    ("name", "ldae", "expected"),
    [
        ("diagnosis:AD", "two", "directions of another LDAE"),
        ("diagnosis:CN", "one", "diagnosis:AD with negative scales"),
        ("age_years", "one", r"age_years is not among .*: diagnosis:AD$"),
    ],
)
def test_directions_that_do_not_fit_are_refused(directions, name, ldae, expected):
    with pytest.raises(ContractError, match=expected):
        read_direction(directions, name, ldae_digest=ldae)


def test_a_file_without_directions_is_refused(directions):
    directions.write_text("{}")
    with pytest.raises(ContractError, match="run `pipeline probe`"):
        read_direction(directions, "diagnosis:AD", ldae_digest="one")


@pytest.mark.slow
def test_models_that_do_not_belong_together_are_refused(tmp_path, autoencoder_path, ldae_path):
    other = tmp_path / "ldae"
    other.mkdir()
    for file in ldae_path.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / CONFIG).read_text()) | {"autoencoder_digest": "another"}
    (other / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ContractError, match="another autoencoder"):
        load_models(autoencoder_path, other, EvaluateParams(), device=CPU)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [{"num_inference_steps": 1000}, {"other_steps": [5, 1000]}])
def test_more_sampler_steps_than_the_schedule_has_are_refused(autoencoder_path, ldae_path, steps):
    with pytest.raises(ParamsError, match="1000 sampler steps: expected 1 to 999"):
        load_models(autoencoder_path, ldae_path, EvaluateParams(**steps), device=CPU)


def broken_copy(folder, model, change):
    """Copy a model folder with other entries in its config; None takes one out."""
    shutil.copytree(model, folder)
    config = json.loads((folder / CONFIG).read_text()) | change
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grid": None}, "no 'grid'"),
        ({"unet": {"in_channels": 8}}, "describes no model of this version"),
        ({"encoder": {"kind": "latent", "modes": 4}}, r"this version \(no 'tissue_modes'\)"),
    ],
)
def test_a_config_that_describes_no_ldae_is_refused(tmp_path, ldae_path, change, expected):
    broken = broken_copy(tmp_path / "broken", ldae_path, change)
    with pytest.raises(ContractError, match=expected):
        load_ldae(broken, device=CPU)


@pytest.mark.slow
def test_an_ldae_of_before_gains_has_the_field_as_it_was_trained(tmp_path, ldae_path):
    today = load_ldae(ldae_path, device=CPU).net.estimator
    assert today.gain.ne(1).any(), "fitted to the validation people"
    assert today.gain.min() >= 0
    assert today.gain.max() <= MOST_GAIN
    before = broken_copy(tmp_path / "before", ldae_path, {})
    tensors = load_file(before / WEIGHTS)
    del tensors["estimator.gain"]
    save_file(tensors, before / WEIGHTS)
    config = json.loads((before / CONFIG).read_text())
    config["weights_sha256"] = digest_file(before / WEIGHTS)
    (before / CONFIG).write_text(json.dumps(config))
    assert load_ldae(before, device=CPU).net.estimator.gain.eq(1).all()


def test_a_config_that_describes_no_autoencoder_is_refused(tmp_path, autoencoder_path):
    broken = broken_copy(tmp_path / "broken", autoencoder_path, {"architecture": {"width": 3}})
    with pytest.raises(ContractError, match="describes no model of this version"):
        load_autoencoder(broken, device=CPU)


def test_a_config_that_is_none_is_refused_and_the_model_trained_anew(tmp_path, autoencoder_path):
    broken = broken_copy(tmp_path / "broken", autoencoder_path, {})
    (broken / CONFIG).write_text("[1, 2]")
    with pytest.raises(ContractError, match="expected a model folder of kind ae"):
        load_autoencoder(broken, device=CPU)
    assert finished_metrics(broken, kind="ae", fingerprint="any") is None


@pytest.mark.slow
def test_latents_that_y_sem_was_not_made_of_are_refused(tmp_path, models, latents_path):
    latents = open_latents(latents_path)
    path = tmp_path / "semantics.zarr"
    embed_latents(latents, models.ldae, path, EmbedParams(), device=CPU)
    semantics = OpenStore(path, kind="semantics")
    check_same_latents(semantics, latents)
    renewed = [f"{print_}0" for print_ in latents.attributes.fingerprints]
    latents.attributes = latents.attributes.model_copy(update={"fingerprints": renewed})
    with pytest.raises(ContractError, match=r"the latent of sub-000 is not .*20 of 20 scans"):
        check_same_latents(semantics, latents)
    with pytest.raises(ContractError, match=r"1 of 1 scans"):
        check_same_latents(semantics, latents, [SCAN])
