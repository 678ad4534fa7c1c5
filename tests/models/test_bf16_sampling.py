"""Sampling and inversion under bf16 autocast."""

from dataclasses import replace

import pytest
import torch

from pipeline.models.inference import load_models
from pipeline.stores.latents import open_latents
from schemas.evaluation import EvaluateParams
from tests.support.tiny_models import CPU


@pytest.mark.slow
def test_bf16_moves_codes_and_samples_a_little_and_is_told_of(
    autoencoder_path, ldae_path, latents_path
):
    params = EvaluateParams(num_inference_steps=6, precision="bf16")
    rounded = load_models(autoencoder_path, ldae_path, params, device=CPU)
    exact = replace(rounded, bf16=False)
    store = open_latents(latents_path)
    z_0 = exact.standardise(store.load(store.attributes.scan_ids[:2]).mean)
    y_sem = exact.embed(z_0)
    x_T, expected = rounded.invert(y_sem, z_0), exact.invert(y_sem, z_0)
    assert x_T.dtype == torch.float32
    assert 0 < float((x_T - expected).norm() / expected.norm()) < 0.03
    made, wanted = rounded.sample(y_sem, expected), exact.sample(y_sem, expected)
    assert 0 < float((made - wanted).norm() / wanted.norm()) < 0.03
    assert rounded.record()["precision"] == "bf16"
    assert "precision" not in exact.record()
