"""Volumes that take the place of latents."""

import numpy as np
import torch

from pipeline.training.voxel_latents import VoxelsAsLatents


def test_volumes_as_latents_are_the_volumes(volumes):
    store = VoxelsAsLatents(volumes.path)
    latents = store.load(["sub-007", "sub-002"])
    expected = volumes.read_unit_interval(slice(7, 8))
    np.testing.assert_allclose(latents.mean[:1].float().numpy(), expected, atol=5e-4)
    draw = latents.sample_posterior(torch.tensor([0]), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(draw.numpy(), expected, atol=5e-4)
