"""Both stages start from a finished LDAE, on its own grid and on a smaller one."""

import dataclasses
import re

import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.cohort.subjects import subjects_of
from pipeline.encoding.embed import embed_latents
from pipeline.models.artefact import read_artefact
from pipeline.models.bundled_ldae import load_start, load_start_of_stage_1
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.models.inference import load_models
from pipeline.nets.centred import centred, placed
from pipeline.stores.latents import open_latents
from pipeline.training.plan import PLAN
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams
from schemas.params import EmbedParams
from tests.support.smaller_grid import make_smaller_latents, make_smaller_volumes
from tests.support.tiny_models import CPU, LDAE, LDM
from tests.support.volumes import subjects

STILL = {"lr": 1e-12, "steps": 1, "checkpoint_every": 1}


def still(params, **changes):
    """Return parameters of a training that leaves the weights where they are."""
    return params.model_copy(update=STILL | changes)


def close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        # Statistics and gain are those of this training's scans, whatever it started from.
        if not any(fitted in name for fitted in ("running", "num_batches", "gain")):
            torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=0, msg=name)


@pytest.fixture(scope="module")
def small(tmp_path_factory, autoencoder_path):
    folder = tmp_path_factory.mktemp("smaller")
    volumes = make_smaller_volumes(folder / "volumes.zarr", subjects(20))
    return make_smaller_latents(folder / "latents.zarr", volumes, autoencoder_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ldm", "ldae"])
def test_stage_1_starts_from_weights_and_statistics_of_either_stage(
    tmp_path, latents_path, trained, split, kind
):
    start = load_start_of_stage_1(trained / kind)
    store = open_latents(latents_path)
    few = {"train": split["train"][:5], "val": split["val"]}
    stages.train_denoiser(store, few, still(LDM), tmp_path / "ldm", device=CPU, start=start)
    made = read_artefact(tmp_path / "ldm", kind="ldm")
    close(made.tensors, load_diffusion(trained / "ldm", device=CPU).diffusion.state_dict())
    assert made.config["started_from"] == made.config["inputs"]["start"] == start.digest
    assert f"Started from the model {start.digest[:12]}" in (tmp_path / "ldm/README.md").read_text()


@pytest.mark.slow
def test_a_start_decides_what_is_trained_and_where_it_lies_does_not(
    tmp_path, latents_path, trained, split
):
    store, start = open_latents(latents_path), load_start_of_stage_1(trained / "ldm")
    known = [store.digest, split]

    def fingerprint(params, begun):
        return stages._plan(params, known, store, split, start=begun).fingerprint

    named = LDM.model_copy(update={"start_from": trained / "ldm"})
    other = dataclasses.replace(start, digest="another")
    assert fingerprint(named, start) == fingerprint(LDM, start)
    assert len({fingerprint(LDM, s) for s in (None, start, other)}) == 3
    assert (
        fingerprint(LDM, None) == read_artefact(trained / "ldm", kind="ldm").config["fingerprint"]
    )


@pytest.mark.slow
def test_stage_2_starts_from_encoder_estimator_and_modes(tmp_path, latents_path, trained, split):
    store, start = open_latents(latents_path), load_start(trained / "ldae")
    frozen = load_diffusion(trained / "ldm", device=CPU)
    few = {"train": split["train"][:5], "val": split["val"]}
    out = tmp_path / "ldae"
    alone = with_prior(still(LDAE), people=0)
    metrics = stages.train_ldae(store, few, frozen, alone, out, device=CPU, start=start)
    made = load_ldae(out, device=CPU)
    close(made.net.state_dict(), start.net.state_dict())
    assert made.config["started_from"] == start.digest
    assert metrics["val_loss"] < metrics["val_loss_shuffled"]


def with_prior(params, *, people):
    encoder = params.encoder.model_copy(update={"prior_people": people})
    return params.model_copy(update={"encoder": encoder})


@pytest.mark.slow
@pytest.mark.parametrize("people", [50, 1e7])
def test_modes_of_the_start_count_as_those_of_so_many_people(
    tmp_path, latents_path, trained, split, people
):
    """Of very many nothing is left of the study's own; of fifty its centre moves towards it."""
    store, start = open_latents(latents_path), load_start(trained / "ldae")
    frozen = load_diffusion(trained / "ldm", device=CPU)
    few = {"train": split["train"][:5], "val": split["val"]}
    params = with_prior(still(LDAE), people=people)
    stages.train_ldae(store, few, frozen, params, tmp_path / "ldae", device=CPU, start=start)
    made = load_ldae(tmp_path / "ldae", device=CPU).net
    own, theirs = made.encoder, start.net.encoder
    mean = made.diffusion.standardise(store.load(few["train"]).mean.float().mean(0)[None])[0]
    moved = float((own.centre - theirs.centre).norm() / (mean - theirs.centre).norm())
    assert moved == pytest.approx(5 / (5 + people), abs=1e-3)
    for name in ("modes", "spread", "centre"):
        ours = made.estimator.modes.modes if name == "modes" else getattr(made.estimator, name)
        assert torch.equal(ours, own.modes.modes if name == "modes" else getattr(own, name))
    if people > 50:
        used = int((theirs.modes.spread > 0).sum())
        fields = (theirs.modes.modes * theirs.spread / own.spread)[:used].flatten(1)
        held = own.modes.modes.flatten(1) @ torch.nn.functional.normalize(fields, dim=1).T
        assert held.square().sum(0).min() > 0.99


@pytest.mark.slow
def test_both_stages_start_on_a_smaller_grid_and_the_outcome_works_there(
    tmp_path, trained, split, small, autoencoder_path
):
    first = load_start_of_stage_1(trained / "ldae")
    stages.train_denoiser(small, split, LDM, tmp_path / "ldm", device=CPU, start=first)
    frozen, start = load_diffusion(tmp_path / "ldm", device=CPU), load_start(trained / "ldae")
    out, alone = tmp_path / "ldae", with_prior(LDAE, people=0)
    stages.train_ldae(small, split, frozen, alone, out, device=CPU, start=start)
    made = load_ldae(out, device=CPU)
    for name in ("encoder.centre", "encoder.spread", "encoder.modes.modes", "estimator.modes.modes",
                 "diffusion.standardise.shift", "diffusion.standardise.margin"):  # fmt: skip
        assert torch.equal(made.net.state_dict()[name], start.net.state_dict()[name]), name
    assert tuple(made.config["latent_shape"]) == small.latent_shape
    assert tuple(made.config["trained_latent_shape"]) == (3, 4, 6, 5)
    assert embed_latents(small, made, tmp_path / "y.zarr", EmbedParams(), device=CPU) == 20
    params = EvaluateParams(num_inference_steps=6, batch_size=3, precision="fp32")
    models = load_models(autoencoder_path, out, params, device=CPU)
    z_0 = models.standardise(small.load(["sub-016"]).mean)
    codes = models.infer_codes(z_0)
    assert models.decode(models.sample(codes.y_sem, codes.x_T)).shape == (1, 8, 16, 12)


@pytest.mark.slow
def test_on_a_smaller_grid_modes_of_the_start_count_too_and_nobody_differs_around_it(
    tmp_path, trained, split, small
):
    first, start = load_start_of_stage_1(trained / "ldae"), load_start(trained / "ldae")
    stages.train_denoiser(small, split, still(LDM), tmp_path / "ldm", device=CPU, start=first)
    frozen, params = load_diffusion(tmp_path / "ldm", device=CPU), with_prior(still(LDAE), people=7)
    stages.train_ldae(small, split, frozen, params, tmp_path / "ldae", device=CPU, start=start)
    made, theirs = load_ldae(tmp_path / "ldae", device=CPU).net, start.net.encoder
    own, shape = made.encoder, small.latent_shape[1:]
    scans = small.load(split["train"])
    means = torch.stack([scans.mean[i].float() for i in range(len(scans))])
    mean = made.diffusion.standardise(means).mean(0)
    people = len(set(subjects_of(scans.scan_ids)))
    there = centred(theirs.centre, shape)
    moved = (centred(own.centre, shape) - there).norm() / (mean - there).norm()
    assert float(moved) == pytest.approx(people / (people + 7), rel=0.01)
    rim = placed(torch.zeros(small.latent_shape), torch.ones_like(theirs.centre)).bool()
    assert rim.any()
    assert torch.equal(own.centre[rim], theirs.centre[rim])
    # The study's scans are air there; modes of the start may hold something of their own scans.
    assert not torch.equal(own.modes.modes, theirs.modes.modes)
    assert own.modes.modes.shape == theirs.modes.modes.shape


@pytest.mark.slow
def test_a_stage_2_of_its_own_stands_on_a_stage_1_of_a_larger_grid(tmp_path, trained, split, small):
    frozen = load_diffusion(trained / "ldm", device=CPU)
    stages.train_ldae(small, split, frozen, LDAE, tmp_path / "ldae", device=CPU)
    made = load_ldae(tmp_path / "ldae", device=CPU)
    assert made.net.encoder.centre.shape == small.latent_shape
    assert "trained_grid" not in made.config


def denoiser(**changes):
    return LDM.model_copy(update={"denoiser": LDM.denoiser.model_copy(update=changes)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "told"),
    [
        (denoiser(base_channels=16), "set train_ldm.denoiser.base_channels=8"),
        (denoiser(multipliers=(1, 2, 3)), r"train_ldm.denoiser.multipliers=\[1, 2\]"),
        (LDM.model_copy(update={"prediction": "epsilon"}), 'train_ldm.prediction="v"'),
    ],
)
def test_stage_1_of_other_sizes_is_refused_with_the_parameter_to_set(
    tmp_path, latents_path, trained, split, params, told
):
    start = load_start_of_stage_1(trained / "ldae")
    with pytest.raises(ContractError, match=told):
        stages.train_denoiser(
            open_latents(latents_path), split, params, tmp_path / "ldm", device=CPU, start=start
        )
    assert not (tmp_path / "ldm").exists()


@pytest.mark.slow
def test_dropout_may_be_another_than_at_the_start(tmp_path, latents_path, trained, split):
    start = load_start_of_stage_1(trained / "ldae")
    params = still(denoiser(dropout=0.1))
    out = tmp_path / "ldm"
    stages.train_denoiser(open_latents(latents_path), split, params, out, device=CPU, start=start)
    assert load_diffusion(out, device=CPU).config["unet"]["dropout"] == 0.1


def encoder(**changes):
    return LDAE.model_copy(update={"encoder": LDAE.encoder.model_copy(update=changes)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "told"),
    [
        (encoder(dim=24), "set train_ldae.encoder.dim=12, train_ldae.encoder.modes=6"),
        (encoder(modes=3), "set train_ldae.encoder.modes=6"),
        (encoder(kind="latent-2.5d"), 'set train_ldae.encoder.kind="latent"'),
        (encoder(channels=(8, 16, 16)), r"set train_ldae.encoder.channels=\[8, 16\]"),
    ],
)
def test_stage_2_of_other_sizes_is_refused_with_the_parameter_to_set(
    tmp_path, latents_path, trained, split, params, told
):
    frozen, start = load_diffusion(trained / "ldm", device=CPU), load_start(trained / "ldae")
    store = open_latents(latents_path)
    with pytest.raises(ContractError, match=told):
        stages.train_ldae(store, split, frozen, params, tmp_path / "x", device=CPU, start=start)


@pytest.mark.slow
def test_stage_2_does_not_start_on_another_stage_1(tmp_path, latents_path, trained, split):
    store, frozen = open_latents(latents_path), load_diffusion(trained / "ldm", device=CPU)
    frozen.diffusion.standardise.shift += 0.1
    start = load_start(trained / "ldae")
    with pytest.raises(ContractError, match=r"set train_ldm\.start_from to the same"):
        stages.train_ldae(store, split, frozen, LDAE, tmp_path / "x", device=CPU, start=start)


@pytest.mark.slow
def test_latents_that_the_start_does_not_work_on_name_both_remedies(
    tmp_path, latents_path, trained, split
):
    start = load_start_of_stage_1(trained / "ldae")
    start = dataclasses.replace(start, config=start.config | {"latent_shape": [3, 3, 6, 5]})
    told = r"a larger grid.*preprocess to that grid and encode, or leave train_ldm.start_from empty"
    with pytest.raises(ContractError, match=told):
        stages.train_denoiser(
            open_latents(latents_path), split, LDM, tmp_path / "x", device=CPU, start=start
        )


@pytest.mark.slow
def test_the_plan_tells_of_another_start(tmp_path, latents_path, trained, split, caplog):
    store, start = open_latents(latents_path), load_start_of_stage_1(trained / "ldae")
    out = tmp_path / "ldm"
    stages.train_denoiser(store, split, still(LDM), out, device=CPU)
    stages.train_denoiser(store, split, still(LDM), out, device=CPU, start=start)
    assert re.search(r"made otherwise \(other start\)", caplog.text)
    assert not (out.with_name("ldm.training") / PLAN).exists()
