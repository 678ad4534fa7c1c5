"""A resumed run equals an undisturbed one, and a user's files stay."""

import json
import shutil

import pandas as pd
import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_diffusion
from pipeline.stores.latents import open_latents
from pipeline.training.autoencoder import train_autoencoder
from pipeline.training.autoencoder_module import AutoencoderModule
from pipeline.training.latent_modules import DenoiserModule, SemanticModule
from schemas.errors import ContractError
from tests.support.tiny_models import CPU, LDAE, LDM, TINY_AE


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_resumed_stages_equal_uninterrupted_ones(tmp_path, killed_at, latents_path, split, trained):
    store = open_latents(latents_path)

    def first():
        stages.train_denoiser(store, split, LDM, tmp_path / "ldm", device=CPU)

    def second():
        frozen = load_diffusion(tmp_path / "ldm", device=CPU)
        stages.train_ldae(store, split, frozen, LDAE, tmp_path / "ldae", device=CPU)

    killed_at(DenoiserModule, 6, first)
    killed_at(SemanticModule, 6, second)
    for kind in ("ldm", "ldae"):
        whole, resumed = (read_artefact(root / kind, kind=kind) for root in (trained, tmp_path))
        assert resumed.digest == whole.digest, kind


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_stages_equal_uninterrupted_ones_with_dropout(
    tmp_path, killed_at, latents_path, split, accumulate
):
    store = open_latents(latents_path)
    changes = {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "accumulate": accumulate}
    first = LDM.model_copy(
        update=changes | {"denoiser": LDM.denoiser.model_copy(update={"dropout": 0.3})}
    )
    second = LDAE.model_copy(update=changes)

    def train(name):
        folder = tmp_path / name
        stages.train_denoiser(store, split, first, folder / "ldm", device=CPU)
        frozen = load_diffusion(folder / "ldm", device=CPU)
        stages.train_ldae(store, split, frozen, second, folder / "ldae", device=CPU)

    torch.manual_seed(1)
    train("whole")
    torch.manual_seed(2)
    killed_at(DenoiserModule, 3, lambda: train("resumed"))
    shutil.rmtree(tmp_path / "resumed" / "ldae")
    killed_at(SemanticModule, 3, lambda: train("resumed"))
    for kind in ("ldm", "ldae"):
        whole, resumed = (
            read_artefact(tmp_path / name / kind, kind=kind) for name in ("whole", "resumed")
        )
        assert resumed.digest == whole.digest, kind


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_finished_model_is_not_trained_again(monkeypatch, latents_path, split, trained):
    monkeypatch.setattr(
        "pipeline.training.lightning_run.run_training",
        lambda *_, **__: pytest.fail("trained again"),
    )
    metrics = stages.train_denoiser(
        open_latents(latents_path), split, LDM, trained / "ldm", device=CPU
    )
    assert metrics == json.loads((trained / "ldm" / "metrics.json").read_text())
