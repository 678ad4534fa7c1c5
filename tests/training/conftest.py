"""Training of stage 1 on the tiny latents."""

import pytest

import pipeline.training.latent_diffusion as stages
from pipeline.models.artefact import read_artefact
from pipeline.stores.latents import open_latents
from tests.support.tiny_models import CPU
from tests.support.tiny_training import ldm


@pytest.fixture
def train(tmp_path, latents_path, split):
    """Train stage 1 into a folder of tmp_path; return its artefact."""

    def run(name, **changes):
        store = open_latents(latents_path)
        stages.train_denoiser(store, split, ldm(**changes), tmp_path / name, device=CPU)
        return read_artefact(tmp_path / name, kind="ldm")

    return run
