"""Training ends where validation no longer improves, with the best weights."""

import math

import pandas as pd
import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_diffusion
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from tests.support.tiny_models import CPU
from tests.support.tiny_training import ldae, ldm


def validations(monkeypatch, losses):
    """Make the validations give these losses, and note the weights that each saw."""
    seen, given = [], iter(losses)

    def compute(self):
        seen.append({k: v.clone() for k, v in self.averaged.state_dict().items()})
        return {"loss": next(given)}

    monkeypatch.setattr(DenoiserModule, "compute_validation", compute)
    return seen


@pytest.mark.slow
def test_training_ends_where_validation_no_longer_improves_with_the_best_weights(
    train, monkeypatch
):
    seen = validations(monkeypatch, [3.0, 1.0, 2.0, 1.5, 0.1, 0.1])
    made = train("early", steps=12, patience=2)
    assert len(seen) == 4
    for name, tensor in seen[1].items():
        assert torch.equal(tensor, made.tensors[f"denoiser.{name}"])
    figures = made.config["metrics"]
    assert figures["val_loss"] == 1.0
    assert figures["best_step"] == figures["step"] / 2


@pytest.mark.slow
def test_the_best_weights_survive_a_kill(train, monkeypatch):
    compute = DenoiserModule.compute_losses

    def dying(self, step):
        if step == 5:
            raise KeyError
        return compute(self, step)

    seen = validations(monkeypatch, [1.0, 2.0, 1.5])
    monkeypatch.setattr(DenoiserModule, "compute_losses", dying)
    with pytest.raises(KeyError):
        train("killed", steps=12, patience=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    made = train("killed", steps=12, patience=2)
    assert len(seen) == 3
    for name, tensor in seen[0].items():
        assert torch.equal(tensor, made.tensors[f"denoiser.{name}"])


@pytest.mark.slow
def test_the_last_weights_are_validated_where_no_interval_ends_with_them(train, tmp_path):
    train("odd", steps=5)
    log = pd.read_csv(tmp_path / "odd" / "log.csv").set_index("step")
    assert log["val_loss"].dropna().index.tolist() == [2, 4, 5]


@pytest.mark.slow
def test_an_early_end_is_remembered(train, monkeypatch):
    """When only the model was missing, training does not go on."""
    seen = validations(monkeypatch, [1.0, 2.0, 3.0, 0.1])
    write = stages.write_artefact
    monkeypatch.setattr(stages, "write_artefact", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        train("early", steps=12, patience=2)
    monkeypatch.setattr(stages, "write_artefact", write)
    assert train("early", steps=12, patience=2).config["metrics"]["val_loss"] == 1.0
    assert len(seen) == 3


@pytest.mark.slow
def test_what_is_trained_and_when_it_ends_does_not_depend_on_test(tmp_path, latents_path, split):
    store = open_latents(latents_path)
    others = split | {"test": split["test"][:1]}
    made = []
    for name, scans in (("whole", split), ("blind", others)):
        out = tmp_path / name
        stages.train_denoiser(store, scans, ldm(patience=1), out / "ldm", device=CPU)
        frozen = load_diffusion(out / "ldm", device=CPU)
        stages.train_ldae(store, scans, frozen, ldae(patience=1), out / "ldae", device=CPU)
        made.append(read_artefact(out / "ldae", kind="ldae"))
    assert made[0].tensors.keys() == made[1].tensors.keys()
    for name, tensor in made[0].tensors.items():
        assert torch.equal(tensor, made[1].tensors[name]), name


@pytest.mark.slow
def test_patience_without_validation_scans_trains_to_the_last_step(
    tmp_path, latents_path, split, caplog
):
    store, no_val = open_latents(latents_path), {**split, "val": []}
    metrics = stages.train_denoiser(store, no_val, ldm(patience=1), tmp_path / "x", device=CPU)
    assert metrics["step"] == ldm().steps
    assert "no early stop" in caplog.text


@pytest.mark.slow
def test_an_empty_validation_split_costs_the_figures_only(tmp_path, latents_path, split, caplog):
    store, no_val = open_latents(latents_path), split | {"val": []}
    metrics = stages.train_denoiser(store, no_val, ldm(), tmp_path / "ldm", device=CPU)
    assert "val_loss" not in metrics
    frozen = load_diffusion(tmp_path / "ldm", device=CPU)
    metrics = stages.train_ldae(store, no_val, frozen, ldae(), tmp_path / "ldae", device=CPU)
    assert math.isfinite(metrics["loss"])
    assert "no validation scan" in caplog.text
