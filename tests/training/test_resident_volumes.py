"""Volumes that training reads once."""

import numpy as np
import torch

from pipeline.training.training_volumes import ResidentVolumes


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
