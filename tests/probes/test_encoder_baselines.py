"""Encoders that probes are compared with."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.models.ldae import build_ldae
from pipeline.probes.encoder_baselines import encoder_baselines, untrained_codes
from pipeline.stores.latents import open_latents
from pipeline.training.latent_diffusion import _prepare_encoder
from pipeline.training.mode_fit import fit_modes
from pipeline.training.tissue_fit import TissueSource
from schemas.evaluation import ProbeParams
from tests.support.tiny_models import CPU, DIM, LDAE


@pytest.fixture
def ldae(ldae_path):
    return load_ldae(ldae_path, device=CPU)


@pytest.fixture
def table(split):
    rows = [{"scan_id": s, "split": name} for name, scans in split.items() for s in scans]
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_the_untrained_encoder_is_the_one_that_training_began_with(
    ldae, trained, latents_path, split, table
):
    store = open_latents(latents_path)
    frozen = load_diffusion(trained / "ldm", device=CPU)
    train = store.load(split["train"])
    torch.manual_seed(LDAE.seed)
    start = build_ldae(ldae.config)
    start.diffusion = frozen.diffusion
    _prepare_encoder(start, train, LDAE, TissueSource())
    fit_modes(start, train, None, started=False)
    standardise = frozen.diffusion.standardise
    z_0 = standardise(store.load(list(table["scan_id"])).mean.float())
    fit = (table["split"] == "train").to_numpy()
    widened = standardise(train.mean.float()) * standardise.margin
    start.encoder.eval().estimate_output_statistics([widened])
    with torch.no_grad():
        expected = start.encoder(z_0).numpy()
    made = untrained_codes(ldae.config, ldae.net, z_0, fit)
    np.testing.assert_allclose(made, expected, atol=2e-3)
    with torch.no_grad():
        own = ldae.net.encoder(z_0).numpy()
    quick = untrained_codes(ldae.config, ldae.net, z_0, fit, own=own)
    np.testing.assert_allclose(quick, made, atol=1e-5)
    other = ldae.config | {"params": ldae.config["params"] | {"seed": LDAE.seed + 1}}
    assert np.abs(made - untrained_codes(other, ldae.net, z_0, fit)).max() > 0.05


@pytest.mark.slow
def test_the_parts_of_y_sem_are_its_modes_and_its_summary(ldae, ldae_path, latents_path, table):
    y_sem = np.random.default_rng(0).normal(size=(len(table), DIM))
    features, heads = encoder_baselines(
        ldae_path,
        open_latents(latents_path),
        table,
        ProbeParams(supervised_steps=1),
        CPU,
        y_sem=y_sem,
        made_by=ldae.digest,
    )
    assert set(features) == {"mode_amounts", "summary", "untrained", "supervised_encoder"}
    both = np.hstack([features["mode_amounts"], features["summary"]])
    np.testing.assert_array_equal(both, y_sem)
    count = len(ldae.net.encoder.modes.spread)
    with torch.no_grad():
        z_0 = ldae.net.diffusion.standardise(
            open_latents(latents_path).load(list(table["scan_id"])).mean.float()
        )
        own = ldae.net.encoder(z_0).numpy()
    np.testing.assert_allclose(features["untrained"][:, :count], own[:, :count], atol=1e-4)
    assert set(heads) == {"supervised_encoder"}
