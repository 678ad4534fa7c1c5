"""Training: resumed equals uninterrupted, frozen stays frozen, EMA once a step, strict loading."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import pipeline.runtime.devices as compute_module
import pipeline.training.latent_diffusion as stages
import pipeline.training.lightning_run as fit_module
from pipeline.cohort.subjects import scans_of_others
from pipeline.diffusion.losses import noise_loss, shift_coefficient, velocity
from pipeline.diffusion.schedule import per_sample
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import Latents, open_latents
from pipeline.training.autoencoder import AutoencoderModule, train_autoencoder
from pipeline.training.batches import batch_rows
from pipeline.training.step_module import StepModule
from schemas.diffusion import TrainLdaeParams, TrainLdmParams
from schemas.errors import ContractError, TrainingError
from schemas.section import OptimParams
from tests.conftest import TINY_AE

pytestmark = pytest.mark.slow
"""Networks are trained."""

CPU = torch.device("cpu")
SHARED = {"steps": 12, "batch_size": 4, "checkpoint_every": 4, "precision": "fp32"}
LDM = TrainLdmParams(
    **SHARED, denoiser={"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]}
)
LDAE = TrainLdaeParams(**SHARED, encoder={"channels": [8, 16], "dim": 12, "num_heads": 2})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, latents_path, split):
    root = tmp_path_factory.mktemp("trained")
    store = open_latents(latents_path)
    stages.train_denoiser(store, split, LDM, root / "ldm", device=CPU)
    frozen = load_diffusion(root / "ldm", device=CPU)
    stages.train_ldae(store, split, frozen, LDAE, root / "ldae", device=CPU)
    return root


def test_batches_cover_every_scan_once_an_epoch():
    rows = torch.cat([batch_rows(s, num_rows=10, batch_size=4, seed=1) for s in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


class KilledError(Exception):
    pass


@pytest.fixture
def killed_at(monkeypatch):
    """Run a training that dies in a step, and then once more to its end."""

    def run(module, step, train):
        compute = module.compute_losses

        def dying(self, now):
            if now == step:
                raise KilledError
            return compute(self, now)

        monkeypatch.setattr(module, "compute_losses", dying)
        with pytest.raises(KilledError):
            train()
        monkeypatch.setattr(module, "compute_losses", compute)
        train()

    return run


def test_resumed_autoencoder_equals_an_uninterrupted_one(
    tmp_path, killed_at, volumes, split, autoencoder_path
):
    out = tmp_path / "ae"
    killed_at(
        AutoencoderModule,
        8,
        lambda: train_autoencoder(volumes, split, TINY_AE, out, device=CPU),
    )
    whole, resumed = read_artefact(autoencoder_path, kind="ae"), read_artefact(out, kind="ae")
    assert whole.digest == resumed.digest
    curves = [pd.read_csv(p / "log.csv").drop(columns="seconds") for p in (autoencoder_path, out)]
    pd.testing.assert_frame_equal(*curves)


def test_resumed_stages_equal_uninterrupted_ones(tmp_path, killed_at, latents_path, split, trained):
    store = open_latents(latents_path)

    def first():
        stages.train_denoiser(store, split, LDM, tmp_path / "ldm", device=CPU)

    def second():
        frozen = load_diffusion(tmp_path / "ldm", device=CPU)
        stages.train_ldae(store, split, frozen, LDAE, tmp_path / "ldae", device=CPU)

    killed_at(stages.DenoiserModule, 6, first)
    killed_at(stages.SemanticModule, 6, second)
    for kind in ("ldm", "ldae"):
        whole, resumed = (read_artefact(root / kind, kind=kind) for root in (trained, tmp_path))
        assert resumed.digest == whole.digest, kind


def test_no_training_writes_among_a_users_files(tmp_path, trained, volumes, latents_path, split):
    (tmp_path / "README.md").write_text("# My scans")
    store = open_latents(latents_path)
    frozen = load_diffusion(trained / "ldm", device=CPU)
    for train in (
        lambda: train_autoencoder(volumes, split, TINY_AE, tmp_path, device=CPU),
        lambda: stages.train_denoiser(store, split, LDM, tmp_path, device=CPU),
        lambda: stages.train_ldae(store, split, frozen, LDAE, tmp_path, device=CPU),
    ):
        with pytest.raises(ContractError, match=r"other files than a model's \(README\.md\)"):
            train()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_stage_two_leaves_the_denoiser_bit_identical(trained):
    before = read_artefact(trained / "ldm", kind="ldm").tensors
    after = read_artefact(trained / "ldae", kind="ldae").tensors
    for name, tensor in before.items():
        assert torch.equal(tensor, after[f"diffusion.{name}"]), name


def test_stage_two_trains_encoder_and_estimator(trained):
    net = load_ldae(trained / "ldae", device=CPU).net
    assert net.estimator.decoder.out.weight.any()
    y_sem = net.embed(torch.randn(2, 3, 4, 6, 5))
    assert not torch.allclose(y_sem[0], y_sem[1])


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


def test_moving_average_equals_a_naive_loop():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    module = StepModule(net, OptimParams(steps=5, batch_size=1, lr=0.1, ema_decay=0.3))
    naive = None
    for n in range(5):
        with torch.no_grad():
            net.weight += 1
        module.ema.update_parameters(net)
        decay = min(0.3, (1 + n) / (10 + n))
        naive = net.weight.clone() if naive is None else decay * naive + (1 - decay) * net.weight
    torch.testing.assert_close(module.averaged.weight, naive)


@pytest.mark.parametrize(
    ("asked", "native", "bf16", "said"),
    [
        ("auto", True, True, ""),
        ("auto", False, False, "training in fp32"),
        ("bf16", False, True, "emulates bf16"),
        ("fp32", True, False, ""),
    ],
)
def test_bf16_is_taken_where_it_is_native(
    tmp_path, monkeypatch, caplog, latents_path, split, asked, native, bf16, said
):
    seen = set()
    compute = stages.DenoiserModule.compute_losses

    def watched(self, step):
        seen.add(torch.is_autocast_enabled("cpu"))
        return compute(self, step)

    monkeypatch.setattr(stages.DenoiserModule, "compute_losses", watched)
    for module in (compute_module, fit_module):
        monkeypatch.setattr(module, "native_bf16", lambda _: native)
    params = LDM.model_copy(update={"precision": asked, "steps": 2})
    with caplog.at_level("INFO"):
        stages.train_denoiser(open_latents(latents_path), split, params, tmp_path / "m", device=CPU)
    assert seen == {bf16}
    assert said in caplog.text
    assert said or "bf16" not in caplog.text


def test_nan_gradient_stops_before_it_touches_a_weight(tmp_path, monkeypatch, latents_path, split):
    """The loss may still be finite; the checkpoint of that very step must not be written."""
    compute = stages.DenoiserModule.compute_losses
    out, store = tmp_path / "ldm", open_latents(latents_path)

    def poisoned(self, step):
        losses = compute(self, step)
        if step == 7:
            losses["loss"].register_hook(lambda gradient: gradient * float("nan"))
        return losses

    monkeypatch.setattr(stages.DenoiserModule, "compute_losses", poisoned)
    assert LDM.checkpoint_every == 4, "step 8 writes one"
    with pytest.raises(TrainingError, match="step 7: gradient norm is nan"):
        stages.train_denoiser(store, split, LDM, out, device=CPU)
    monkeypatch.setattr(stages.DenoiserModule, "compute_losses", compute)
    metrics = stages.train_denoiser(store, split, LDM, out, device=CPU)
    assert math.isfinite(metrics["loss"])
    assert math.isfinite(metrics["val_loss"])


def test_y_sem_is_shuffled_between_subjects_never_between_visits():
    visits = [f"sub-{i}" for i in (0, 1, 2)] * 2
    assert [visits[i] for i in scans_of_others(visits)] != visits
    for subjects in (visits, ["a", "a", "a", "b"], list("abcde"), ["a", "b"]):
        others = scans_of_others(subjects)
        assert all(subjects[o] != own for o, own in zip(others, subjects, strict=True))
    assert scans_of_others(["a", "a"]) == []


def test_nan_loss_stops_at_once_and_names_the_step(tmp_path, monkeypatch, latents_path, split):
    def poisoned(self, step):
        loss = self.net(torch.zeros(1, 3, 4, 6, 5), torch.zeros(1)).sum()
        return {"loss": loss * (float("nan") if step == 5 else 1)}

    monkeypatch.setattr(stages.DenoiserModule, "compute_losses", poisoned)
    with pytest.raises(TrainingError, match="step 5"):
        stages.train_denoiser(open_latents(latents_path), split, LDM, tmp_path / "ldm", device=CPU)
    assert (tmp_path / "ldm.training" / "last.ckpt").is_file()


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


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "kind"])
def test_damaged_model_is_refused_in_one_line(tmp_path, autoencoder_path, damage):
    path = tmp_path / "ae"
    shutil.copytree(autoencoder_path, path)
    weights = path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(data[:-10])
    elif damage == "flipped":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "missing":
        weights.unlink()
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"kind": "ldm"}))
    with pytest.raises(ContractError) as caught:
        load_autoencoder(path, device=CPU)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_posterior_draws_have_the_posterior_moments():
    latents = Latents(
        ["a"],
        torch.full((1, 1, 20, 20, 20), 2.0).half(),
        torch.full((1, 1, 20, 20, 20), -2.0).half(),
    )
    draw = latents.sample_posterior(torch.tensor([0]), generator=torch.Generator().manual_seed(0))
    assert float(draw.mean()) == pytest.approx(2, abs=0.02)
    assert float(draw.std()) == pytest.approx(np.exp(-1), abs=0.01)


def test_a_finished_model_is_not_trained_again(monkeypatch, latents_path, split, trained):
    monkeypatch.setattr(stages, "run_training", lambda *_, **__: pytest.fail("trained again"))
    metrics = stages.train_denoiser(
        open_latents(latents_path), split, LDM, trained / "ldm", device=CPU
    )
    assert metrics == json.loads((trained / "ldm" / "metrics.json").read_text())


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
