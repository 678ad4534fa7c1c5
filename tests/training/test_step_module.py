"""One step: moving average, precision, and numbers that are none."""

import math

import pytest
import torch

import pipeline.runtime.devices as compute_module
import pipeline.training.latent_diffusion as stages
import pipeline.training.lightning_run as fit_module
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from pipeline.training.step_module import StepModule
from schemas.errors import TrainingError
from schemas.section import OptimParams
from tests.support.tiny_models import CPU, LDM


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


@pytest.mark.slow
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
    compute = DenoiserModule.compute_losses

    def watched(self, step):
        seen.add(torch.is_autocast_enabled("cpu"))
        return compute(self, step)

    monkeypatch.setattr(DenoiserModule, "compute_losses", watched)
    for module in (compute_module, fit_module):
        monkeypatch.setattr(module, "native_bf16", lambda _: native)
    params = LDM.model_copy(update={"precision": asked, "steps": 2})
    with caplog.at_level("INFO"):
        stages.train_denoiser(open_latents(latents_path), split, params, tmp_path / "m", device=CPU)
    assert seen == {bf16}
    assert said in caplog.text
    assert said or "bf16" not in caplog.text


@pytest.mark.slow
def test_nan_gradient_stops_before_it_touches_a_weight(tmp_path, monkeypatch, latents_path, split):
    """The loss may still be finite; the checkpoint of that very step must not be written."""
    compute = DenoiserModule.compute_losses
    out, store = tmp_path / "ldm", open_latents(latents_path)

    def poisoned(self, step):
        losses = compute(self, step)
        if step == 7:
            losses["loss"].register_hook(lambda gradient: gradient * float("nan"))
        return losses

    monkeypatch.setattr(DenoiserModule, "compute_losses", poisoned)
    assert LDM.checkpoint_every == 4, "step 8 writes one"
    with pytest.raises(TrainingError, match="step 7: gradient norm is nan"):
        stages.train_denoiser(store, split, LDM, out, device=CPU)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    metrics = stages.train_denoiser(store, split, LDM, out, device=CPU)
    assert math.isfinite(metrics["loss"])
    assert math.isfinite(metrics["val_loss"])


@pytest.mark.slow
def test_nan_loss_stops_at_once_and_names_the_step(tmp_path, monkeypatch, latents_path, split):
    def poisoned(self, step):
        loss = self.net(torch.zeros(1, 3, 4, 6, 5), torch.zeros(1)).sum()
        return {"loss": loss * (float("nan") if step == 5 else 1)}

    monkeypatch.setattr(DenoiserModule, "compute_losses", poisoned)
    with pytest.raises(TrainingError, match="step 5"):
        stages.train_denoiser(open_latents(latents_path), split, LDM, tmp_path / "ldm", device=CPU)
    assert (tmp_path / "ldm.training" / "last.ckpt").is_file()
