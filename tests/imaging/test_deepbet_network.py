"""deepbet's networks: precision, a GPU that is short of memory, devices that are not there."""

import numpy as np
import pytest
import torch

from pipeline.imaging import deepbet_network
from pipeline.imaging.brain import deepbet_mask
from pipeline.imaging.deepbet_network import find_brain, load_deepbet
from pipeline.runtime.devices import native_bf16
from schemas.errors import ParamsError


@pytest.fixture(scope="module")
def small_head():
    """Return a bright ball in a dimmer shell (64, 64, 64): enough to be taken for a head."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij"))
    radius = np.linalg.norm(at / np.array([0.75, 0.9, 0.8])[:, None, None, None], axis=0)
    noise = np.random.default_rng(0).normal(0, 0.02, radius.shape)
    head = np.where(radius < 0.75, 0.8, np.where(radius < 0.85, 0.15, np.where(radius < 1, 0.5, 0)))
    return np.maximum(0, head + noise).astype(np.float32)


def test_bf16_gives_the_mask_of_float32(small_head, monkeypatch):
    monkeypatch.setattr(deepbet_network, "native_bf16", lambda _: True)
    load_deepbet.cache_clear()
    half = find_brain(small_head, "cpu")
    monkeypatch.setattr(deepbet_network, "native_bf16", lambda _: False)
    load_deepbet.cache_clear()
    full = find_brain(small_head, "cpu")
    load_deepbet.cache_clear()
    assert 2 * (half & full).sum() / (half.sum() + full.sum()) > 0.995


def test_only_the_large_network_takes_bf16_and_only_where_it_is_native():
    deepbet = load_deepbet("cpu")
    half = isinstance(deepbet.model, deepbet_network._InBf16)
    assert half == native_bf16(torch.device("cpu"))
    assert not isinstance(deepbet.bbox_model, deepbet_network._InBf16)


def test_a_head_too_large_for_the_gpu_is_stripped_on_the_processor(small_head, monkeypatch, caplog):
    asked = []

    class Short:
        def run_model(self, data):
            raise torch.OutOfMemoryError("no memory")

        def postprocess(self, mask):
            return mask

    def load(device):
        asked.append(device)
        return Short() if device != "cpu" else load_deepbet("cpu")

    expected = find_brain(small_head, "cpu")
    monkeypatch.setattr(deepbet_network, "resolve_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(deepbet_network, "load_deepbet", load)
    assert np.array_equal(find_brain(small_head, "cuda"), expected)
    assert asked == ["meta", "cpu"]
    assert "meta: too little memory" in caplog.text


def test_a_device_that_is_not_there_is_named(small_head):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ParamsError, match="--device cuda"):
        deepbet_mask(small_head, "cuda")
