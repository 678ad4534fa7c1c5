"""Batch size and precision from what the device can do."""

import numpy as np
import pytest
import torch

from pipeline.encoding import device_settings as sizing
from pipeline.encoding.device_settings import find_batch_size, find_precision, scan_bytes
from pipeline.models.frozen import load_autoencoder

CPU = torch.device("cpu")
GRID = (16, 24, 20)


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


def test_memory_of_a_scan_follows_the_grid_and_nothing_is_computed(autoencoder):
    widest = 8 * 8 * 12 * 10 * 4 * 2  # 8 channels on half the grid, in and out, fp32
    assert scan_bytes(autoencoder, GRID) == pytest.approx(sizing.LIVE_TENSORS * widest, rel=0.5)
    double, huge = (scan_bytes(autoencoder, g) for g in ((32, 24, 20), (1600, 2400, 2000)))
    # Padding by one voxel weighs more on a small grid.
    assert double == pytest.approx(2 * scan_bytes(autoencoder, GRID), rel=0.1)
    assert huge == pytest.approx(10**6 * scan_bytes(autoencoder, GRID), rel=0.2)


@pytest.mark.parametrize(
    ("scans", "sharing", "size"), [(0, 1, 1), (3, 1, 2), (3, 2, 1), (99, 1, 4)]
)
def test_batch_size_is_a_power_of_two_that_fits(autoencoder, monkeypatch, scans, sharing, size):
    free = int((scans + 0.5) * scan_bytes(autoencoder, GRID) / sizing.MEMORY_SHARE)
    monkeypatch.setattr(sizing, "available_memory", lambda: free)
    assert find_batch_size(autoencoder, GRID, CPU, sharing=sharing) == size


def test_bf16_only_where_native_and_alike(autoencoder, volumes, monkeypatch):
    sample = volumes.read("volume", slice(0, 1))
    monkeypatch.setattr(sizing, "native_bf16", lambda _: False)
    assert find_precision(autoencoder, sample, CPU) == "fp32"
    monkeypatch.setattr(sizing, "native_bf16", lambda _: True)
    assert find_precision(autoencoder, sample, CPU) == "bf16"
    original = autoencoder.net.encode

    def rough(x):
        mean, logvar = original(x)
        return mean * (1.1 if torch.is_autocast_enabled("cpu") else 1), logvar

    monkeypatch.setattr(autoencoder.net, "encode", rough)
    assert find_precision(autoencoder, sample, CPU) == "fp32"
    assert np.isfinite(sample).all()
