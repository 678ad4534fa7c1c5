"""Evaluation of reconstructions on tiny models: every method, files written, mismatches refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.evaluation.headline import read_headline
from pipeline.evaluation.reconstruction import METHODS, Reconstructor, evaluate_reconstruction
from pipeline.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.precompute.embed import embed_latents
from pipeline.stores.latents import open_latents
from pipeline.stores.reading import OpenStore
from schemas.errors import ContractError
from schemas.params import EmbedParams, EvaluateParams
from tests.test_training import CPU, LDAE, LDM


@pytest.fixture(scope="module")
def ldae_path(tmp_path_factory, latents_path, split):
    root = tmp_path_factory.mktemp("ldae")
    store = open_latents(latents_path)
    stages.train_denoiser(store, split, LDM, root / "ldm", device=CPU)
    frozen = load_diffusion(root / "ldm", device=CPU)
    stages.train_ldae(store, split, frozen, LDAE, root / "ldae", device=CPU)
    return root / "ldae"


@pytest.fixture
def reconstructor(volumes, latents_path, autoencoder_path, ldae_path):
    return Reconstructor(
        volumes=volumes,
        latents=open_latents(latents_path),
        autoencoder=load_autoencoder(autoencoder_path, device=CPU),
        ldae=load_ldae(ldae_path, device=CPU),
        params=EvaluateParams(num_inference_steps=5, bootstrap=20),
        device=CPU,
    )


@pytest.fixture
def manifest(split):
    rows = [
        {"scan_id": scan, "subject_id": scan, "split": name}
        for name, scans in split.items()
        for scan in scans
    ]
    return pd.DataFrame(rows)


def test_every_method_is_judged_on_every_test_scan(tmp_path, reconstructor, manifest):
    metrics = evaluate_reconstruction(reconstructor, manifest, tmp_path / "evaluate")
    per_scan = pd.read_csv(tmp_path / "evaluate" / "per_scan.csv")
    assert per_scan.groupby("method")["scan_id"].nunique().to_dict() == dict.fromkeys(METHODS, 5)
    assert set(metrics["reconstruction"]) == set(METHODS)
    assert set(metrics["differences"]) == {"ldae_minus_ae", "own_minus_other_y_sem"}
    assert json.loads((tmp_path / "evaluate" / "metrics.json").read_text()) == metrics
    with np.load(tmp_path / "evaluate" / "examples.npz") as examples:
        assert examples["ldae"].shape == (5, 16, 24, 20)
    assert any("inverted x_T" in line for line in read_headline(evaluate=tmp_path / "evaluate"))


def test_random_noise_depends_on_the_scan_alone(reconstructor):
    alone, _ = reconstructor.reconstruct(["sub-016"], None)
    among, _ = reconstructor.reconstruct(["sub-017", "sub-016"], None)
    for method, volumes in alone.items():
        torch.testing.assert_close(among[method][1:], volumes, atol=1e-4, rtol=0)


def test_an_empty_split_is_refused(tmp_path, reconstructor, manifest):
    with pytest.raises(ContractError, match="no scan of the test split"):
        evaluate_reconstruction(reconstructor, manifest[manifest["split"] == "train"], tmp_path)


def test_embedding_is_y_sem_of_the_posterior_mean(tmp_path, latents_path, ldae_path):
    latents, ldae = open_latents(latents_path), load_ldae(ldae_path, device=CPU)
    out = tmp_path / "semantics.zarr"
    assert embed_latents(latents, ldae, out, EmbedParams(batch_size=3), device=CPU) == 20
    written = OpenStore(out, kind="semantics").read("y_sem", 7)
    mean = latents.load(["sub-007"]).mean.float()
    expected = ldae.net.embed(ldae.net.diffusion.standardise(mean))[0]
    np.testing.assert_allclose(written, expected.detach().numpy(), atol=1e-4)
    assert embed_latents(latents, ldae, out, EmbedParams(), device=CPU) == 20
