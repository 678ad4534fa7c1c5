"""Both stages: what each trains, what stays frozen, what is refused."""

import json
import math
import shutil

import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.diffusion.losses import noise_loss, shift_coefficient, velocity
from pipeline.diffusion.schedule import per_sample
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import open_latents
from schemas.errors import ContractError
from tests.support.tiny_models import CPU, LDAE, LDM


@pytest.mark.slow
def test_stage_two_leaves_the_denoiser_bit_identical(trained):
    before = read_artefact(trained / "ldm", kind="ldm").tensors
    after = read_artefact(trained / "ldae", kind="ldae").tensors
    for name, tensor in before.items():
        assert torch.equal(tensor, after[f"diffusion.{name}"]), name


@pytest.mark.slow
def test_stage_two_trains_encoder_and_estimator(trained):
    net = load_ldae(trained / "ldae", device=CPU).net
    assert net.estimator.decoder.out.weight.any()
    y_sem = net.embed(torch.randn(2, 3, 4, 6, 5))
    assert not torch.allclose(y_sem[0], y_sem[1])


@pytest.mark.slow
def test_one_batch_of_latents_is_overfitted(latents_path):
    """Stage 1 on two scans at two fixed timesteps."""
    torch.manual_seed(0)
    store = open_latents(latents_path)
    loaded = store.load(["sub-000", "sub-001"])
    shift, scale, _ = stages.estimate_standardisation(loaded, "channel", sampled=False)
    z_0 = (loaded.mean.float() - shift) * scale
    config = stages.unet_config(LDM.denoiser, in_channels=3)
    diffusion = stages.build_diffusion(
        {"unet": config, "diffusion": {}, "prediction": "epsilon", "statistics": [3, 1, 1, 1]}
    )
    t = torch.tensor([300, 600])
    eps = torch.randn(z_0.shape)
    x_t = diffusion.schedule.add_noise(z_0, eps, t)
    optimizer = torch.optim.Adam(diffusion.denoiser.parameters(), lr=3e-3)
    for _ in range(150):
        loss = noise_loss(diffusion.denoiser(x_t, t.float()), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


@pytest.mark.slow
def test_one_batch_of_latents_is_overfitted_by_stage_two(latents_path, trained):
    """The denoiser is frozen: y_sem and G alone must explain what the noise hides."""
    torch.manual_seed(0)
    ldae = load_ldae(trained / "ldae", device=CPU).net
    z_0 = ldae.diffusion.standardise(
        open_latents(latents_path).load(["sub-000", "sub-001"]).mean.float()
    )
    t, eps = torch.tensor([300, 600]), torch.randn(z_0.shape)
    schedule = ldae.diffusion.schedule
    x_t = schedule.add_noise(z_0, eps, t)
    with torch.no_grad():
        trunk = ldae.diffusion.denoiser.trunk(x_t, t.float())
        noise = ldae.diffusion.noise(trunk, x_t, t.float())
    c_t = per_sample(shift_coefficient(schedule, t, "posterior_mean"), noise)
    parts = [*ldae.encoder.parameters(), *ldae.estimator.parameters()]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parts], lr=3e-3)
    losses = []
    for _ in range(150):
        loss = noise_loss(noise + c_t * ldae.estimator(trunk, ldae.encoder(z_0)), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert losses[-1] < 0.05


def test_the_noise_of_a_velocity_network_follows_from_its_field(latents_path):
    """A network that predicts v perfectly gives eps perfectly."""
    config = stages.unet_config(LDM.denoiser, in_channels=3)
    shared = {"unet": config, "diffusion": {}, "statistics": [3, 1, 1, 1]}
    diffusion = stages.build_diffusion({**shared, "prediction": "v"})
    z_0, eps = torch.randn(2, 2, 3, 4, 6, 5)
    t = torch.tensor([20, 900])
    x_t = diffusion.schedule.add_noise(z_0, eps, t)
    field = velocity(diffusion.schedule, z_0, eps, t)
    diffusion.denoiser.decoder.forward = lambda trunk: field
    noise = diffusion.noise(diffusion.denoiser.trunk(x_t, t.float()), x_t, t.float())
    torch.testing.assert_close(noise, eps, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_velocity_with_min_snr_trains_both_stages(tmp_path, latents_path, split):
    store = open_latents(latents_path)
    params = LDM.model_copy(update={"prediction": "v", "min_snr_gamma": 5.0})
    metrics = stages.train_denoiser(store, split, params, tmp_path / "ldm", device=CPU)
    assert math.isfinite(metrics["val_loss"])
    frozen = load_diffusion(tmp_path / "ldm", device=CPU)
    assert frozen.diffusion.prediction == "v"
    stages.train_ldae(store, split, frozen, LDAE, tmp_path / "ldae", device=CPU)
    assert load_ldae(tmp_path / "ldae", device=CPU).net.diffusion.prediction == "v"


def test_too_few_scans_are_refused(tmp_path, latents_path):
    with pytest.raises(ContractError, match="training scans"):
        stages.train_denoiser(
            open_latents(latents_path),
            {"train": ["sub-000"], "val": []},
            LDM,
            tmp_path / "ldm",
            device=CPU,
        )


@pytest.mark.slow
def test_latents_of_another_autoencoder_are_refused(tmp_path, latents_path, split, trained):
    other = tmp_path / "other.zarr"
    shutil.copytree(latents_path, other)
    meta = json.loads((other / "zarr.json").read_text())
    attributes = meta["attributes"]
    attributes["digests"]["autoencoder"] = "0" * 64
    del attributes["record_sha256"]
    attributes["record_sha256"] = digest_of(attributes)
    (other / "zarr.json").write_text(json.dumps(meta))
    frozen = load_diffusion(trained / "ldm", device=CPU)
    with pytest.raises(ContractError, match="another autoencoder"):
        stages.train_ldae(open_latents(other), split, frozen, LDAE, tmp_path / "x", device=CPU)


@pytest.mark.slow
def test_the_encoder_sees_deviations_from_the_mean_training_latent(latents_path, trained, split):
    """What the frozen encoder subtracts is the training mean, voxel by voxel, of no other scan."""
    store = open_latents(latents_path)
    net = load_ldae(trained / "ldae", device=CPU).net
    z_0 = net.diffusion.standardise(store.load(split["train"]).mean.float())
    torch.testing.assert_close(net.encoder.centre, z_0.mean(0), atol=2e-3, rtol=0)
    by_channel = net.encoder.deviation(z_0).transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_channel.std(1), torch.ones(3), atol=2e-3, rtol=0)
    ratio = net.encoder.spread / net.diffusion.standardise.scale  # the same all over a channel
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert torch.equal(net.encoder.spread, net.estimator.spread)
