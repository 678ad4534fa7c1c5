"""Augmentation of the autoencoder's volumes, and volumes that are read once."""

import math

import numpy as np
import pytest
import torch

from pipeline.training import augment as changes
from pipeline.training.augment import augment
from pipeline.training.training_volumes import ResidentVolumes

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


def test_volumes_are_read_once_while_memory_lasts(volumes, monkeypatch):
    held = ResidentVolumes(volumes, torch.device("cpu"))
    first = held.take([0, 3])
    np.testing.assert_array_equal(first, volumes.read_unit_interval(slice(0, 4))[[0, 3]])
    read = []
    monkeypatch.setattr(held, "store", type("Store", (), {"read": lambda *a: read.append(a)})())
    torch.testing.assert_close(held.take([3, 0]), first.flip(0), rtol=0, atol=0)
    assert not read


def test_what_does_not_fit_is_read_again(volumes, monkeypatch):
    monkeypatch.setattr("pipeline.training.training_volumes.available_memory", lambda: 0)
    held = ResidentVolumes(volumes, torch.device("cpu"))
    torch.testing.assert_close(held.take([2]), held.take([2]), rtol=0, atol=0)
    assert not held._resident
