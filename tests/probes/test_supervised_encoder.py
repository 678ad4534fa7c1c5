"""The untrained encoder that probes are compared with."""

import numpy as np

from pipeline.probes.supervised_encoder import random_encoder_codes


def test_random_encoder_is_standardised_over_training_scans() -> None:
    config = {"in_channels": 1, "grid": (4, 6, 4), "channels": (4, 8), "dim": 6, "num_heads": 2}
    z_0 = np.random.default_rng(0).normal(size=(40, 96)).astype(np.float32)
    train = np.arange(40) < 30
    codes = random_encoder_codes(config, z_0, train, seed=0)
    np.testing.assert_allclose(codes[train].mean(axis=0), 0, atol=1e-3)
    again = random_encoder_codes(config, z_0, train, seed=0)
    np.testing.assert_allclose(codes, again, rtol=1e-4, atol=1e-4)
    assert not np.allclose(codes, random_encoder_codes(config, z_0, train, seed=1))
