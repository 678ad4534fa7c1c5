"""Random changes of volumes."""

import math

import numpy as np
import pytest
import torch

from pipeline.imaging import augment as changes
from pipeline.imaging.augment import augment

SHAPE = (24, 32, 20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def blobs() -> torch.Tensor:
    """Eight volumes with a bright box off the middle."""
    x = torch.zeros(8, 1, *SHAPE)
    x[:, :, 8:20, 6:18, 5:12] = 0.7
    return x


def test_only_the_share_changes_and_the_generator_decides_everything(blobs):
    made = augment(blobs, 0.5, generator())
    changed = (made != blobs).flatten(1).any(1)
    assert 0 < changed.sum() < len(blobs)
    assert made.min() >= 0
    assert made.max() <= 1
    torch.testing.assert_close(made, augment(blobs, 0.5, generator()), rtol=0, atol=0)
    assert (made != augment(blobs, 0.5, generator(1))).any()
    torch.testing.assert_close(augment(blobs, 0, generator()), blobs, rtol=0, atol=0)


def test_a_turn_is_one_in_space_whatever_the_lengths_of_the_axes(blobs, monkeypatch):
    """A quarter turn about z takes x to y; no axis is stretched by the grid's shape."""
    for name in ("STRETCH", "SHIFT"):
        monkeypatch.setattr(changes, name, 0)
    monkeypatch.setattr(changes, "TURN", math.pi / 2)
    monkeypatch.setattr(changes, "_normal", lambda *_: torch.tensor([[[1.0, 0, 0]]] * 3))
    made = changes._moved(blobs[:1], generator())[0, 0]
    volume = [int((v > 0.35).sum()) for v in (blobs[0, 0], made)]
    assert volume[0] == volume[1]
    sides = [np.ptp(np.argwhere(v.numpy() > 0.35), axis=0) + 1 for v in (blobs[0, 0], made)]
    assert list(sides[1]) == [sides[0][1], sides[0][0], sides[0][2]]


def test_blur_keeps_what_there_is(blobs):
    made = changes._blurred(blobs, generator())
    assert (made != blobs).any()
    middle = made[:, 0, 10:18, 8:16, 7:10]
    torch.testing.assert_close(middle, torch.full_like(middle, 0.7))


def test_half_the_strength_changes_less_in_the_same_way(blobs):
    whole, half = (augment(blobs, 1, generator(), strength=s) for s in (1.0, 0.5))
    change = [(made - blobs).abs().flatten(1).mean(1) for made in (whole, half)]
    assert (change[1] < change[0]).all()
    torch.testing.assert_close(augment(blobs, 1, generator(), strength=0), blobs, atol=1e-5, rtol=0)
