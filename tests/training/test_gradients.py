"""A step's batch cut into parts, clipped, averaged and compiled: the outcome is the same."""

import pandas as pd
import pytest
import torch
from torch import nn

import pipeline.training.latent_diffusion as stages
import pipeline.training.step_module as step_module
from pipeline.models.frozen import load_diffusion
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from schemas.errors import ParamsError
from tests.support.tiny_models import CPU
from tests.support.tiny_training import ldae


def assert_same_weights(one, other, atol=1e-5):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=1e-3, msg=name)


class CapturedError(Exception):
    pass


def gradients(monkeypatch, train_stage, parts):
    """Return the gradients of a step's batch cut into so many parts, weights away from zero."""
    modules = []

    def capture(module, *_, **__):
        modules.append(module)
        raise CapturedError

    monkeypatch.setattr("pipeline.training.lightning_run.run_training", capture)
    with pytest.raises(CapturedError):
        train_stage(accumulate=parts)
    (module,) = modules
    generator = torch.Generator().manual_seed(7)
    for parameter in module.net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    for micro in range(parts):
        module.training_step(micro).div(parts).backward()
    return {name: p.grad for name, p in module.net.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_micro_batches_have_the_gradient_of_one_large_batch(
    tmp_path, train, latents_path, split, monkeypatch, stage
):
    """Gradients, and not weights after some steps: Adam makes rounding of a zero a whole step."""
    train("ldm")
    store, frozen = open_latents(latents_path), load_diffusion(tmp_path / "ldm", device=CPU)

    def train_stage(**changes):
        if stage == 1:
            return train("x", **changes)
        return stages.train_ldae(store, split, frozen, ldae(**changes), tmp_path / "x", device=CPU)

    whole, cut = (gradients(monkeypatch, train_stage, parts) for parts in (1, 2))
    assert whole.keys() == cut.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    assert largest > 1e-3
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-4 * largest, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_a_cut_run_resumes_to_the_same_weights(tmp_path, train, monkeypatch):
    compute = DenoiserModule.compute_losses

    def dying(self, step):
        if step == 3:
            raise KeyError
        return compute(self, step)

    whole = train("whole", accumulate=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", dying)
    with pytest.raises(KeyError):
        train("resumed", accumulate=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    assert train("resumed", accumulate=2).digest == whole.digest
    curves = [
        pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds")
        for name in ("whole", "resumed")
    ]
    pd.testing.assert_frame_equal(*curves)


@pytest.mark.slow
def test_a_batch_that_cannot_be_cut_is_refused(train):
    with pytest.raises(ParamsError, match="batch_size 4: cannot be cut into 3"):
        train("x", accumulate=3)


@pytest.mark.slow
@pytest.mark.parametrize(("per", "updates"), [("step", 4), ("micro_batch", 8)])
def test_the_average_moves_once_a_step_or_as_published(train, monkeypatch, per, updates):
    counts = []
    finish = step_module.final_metrics
    monkeypatch.setattr(
        step_module, "final_metrics", lambda m: counts.append(int(m.ema.n_averaged)) or finish(m)
    )
    train(per, accumulate=2, ema_per=per)
    assert counts == [updates]


@pytest.mark.slow
def test_compiled_equals_plain(train, monkeypatch):
    """With the compiler's tracing, but not its code generation, which takes minutes."""
    compiled, plain = [], nn.Module.compile

    def compile_eagerly(self):
        compiled.append(type(self).__name__)
        plain(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    reference = train("plain")
    assert_same_weights(reference.tensors, train("compiled", compile=True).tensors)
    assert compiled == ["Denoiser"]


@pytest.mark.slow
def test_without_a_bound_gradients_are_not_clipped(train):
    free, tight = train("free", grad_clip=0), train("tight", grad_clip=1e-9)
    changed = [not torch.equal(free.tensors[k], v) for k, v in tight.tensors.items()]
    assert any(changed)
