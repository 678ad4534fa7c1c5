"""Latents as training takes them: batches, posterior draws, values that are not finite."""

import numpy as np
import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.models.ldae import build_diffusion, unet_config
from pipeline.stores import latents
from pipeline.stores.latents import Latents, open_latents
from pipeline.training.batches import batch_rows
from pipeline.training.latent_batches import LatentData
from pipeline.training.latent_modules import DenoiserModule
from schemas.errors import ContractError
from tests.support.tiny_training import ldm


@pytest.mark.slow
def test_fewer_scans_than_a_batch_lower_it_to_what_can_be_cut(latents_path, split, caplog):
    store = open_latents(latents_path)
    loaded = {k: store.load(split[k]) for k in ("train", "val")}
    config = {
        "unet": unet_config(ldm().denoiser, in_channels=3),
        "diffusion": {},
        "prediction": "epsilon",
        "statistics": [3, 1, 1, 1],
    }
    diffusion = build_diffusion(config)
    params = ldm(batch_size=50, accumulate=5)
    module = DenoiserModule(diffusion.denoiser, params, LatentData(diffusion, loaded, "sample"))
    assert module.batch_size == 10
    assert "only 12 training scans" in caplog.text


@pytest.mark.slow
def test_the_stored_draw_of_a_scan_never_changes(latents_path, split):
    store = open_latents(latents_path)
    loaded = {k: store.load(split[k]) for k in ("train", "val")}
    unet = unet_config(ldm().denoiser, in_channels=3)
    config = {"unet": unet, "diffusion": {}, "prediction": "epsilon"}
    diffusion = build_diffusion(config | {"statistics": [3, 1, 1, 1]})
    module = DenoiserModule(diffusion.denoiser, ldm(), LatentData(diffusion, loaded, "stored_draw"))
    both = module.data.fixed_z_0("train", torch.tensor([3, 5]))
    torch.testing.assert_close(module.data.fixed_z_0("train", torch.tensor([5, 3])), both.flip(0))
    mean = loaded["train"].take_mean(torch.tensor([3, 5]))
    spread = (0.5 * loaded["train"].logvar[[3, 5]].float()).exp()
    assert float(((both - mean) / spread).std()) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_latents_that_are_not_finite_are_refused_by_name(train, monkeypatch):
    read = latents.take_rows

    def poisoned(*arguments, **options):
        values = read(*arguments, **options).copy()
        values[3, 0, 1, 2, 3] = float("nan")
        return values

    monkeypatch.setattr(latents, "take_rows", poisoned)
    with pytest.raises(ContractError, match=r"posterior_mean of sub-003 is not finite"):
        train("x")


def test_batches_cover_every_scan_once_an_epoch():
    rows = torch.cat([batch_rows(s, num_rows=10, batch_size=4, seed=1) for s in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


def test_standardised_training_latents_have_unit_variance(latents_path, split):
    train = open_latents(latents_path).load(split["train"])
    shift, scale, _ = stages.estimate_standardisation(train, "channel", sampled=True)
    draws = train.sample_posterior(torch.arange(12), generator=torch.Generator().manual_seed(0))
    by_channel = ((draws - shift) * scale).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(by_channel.mean(1), 0, atol=0.1)
    np.testing.assert_allclose(by_channel.std(1), 1, atol=0.1)
    shift, scale, _ = stages.estimate_standardisation(train, 0.873, sampled=True)
    assert shift.flatten().tolist() == [0.0] * 3
    assert scale.flatten().tolist() == pytest.approx([0.873] * 3)


def test_posterior_draws_have_the_posterior_moments():
    latents = Latents(
        ["a"],
        torch.full((1, 1, 20, 20, 20), 2.0).half(),
        torch.full((1, 1, 20, 20, 20), -2.0).half(),
    )
    draw = latents.sample_posterior(torch.tensor([0]), generator=torch.Generator().manual_seed(0))
    assert float(draw.mean()) == pytest.approx(2, abs=0.02)
    assert float(draw.std()) == pytest.approx(np.exp(-1), abs=0.01)
