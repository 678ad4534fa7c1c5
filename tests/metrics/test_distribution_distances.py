"""The Fréchet distance against its closed form."""

import numpy as np
import pytest

from pipeline.metrics.distribution_distances import frechet_distance


def test_frechet_distance_of_gaussians_is_known():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 3))
    y = 2 * generator.normal(size=(4000, 3)) + [1, 0, 0]
    assert frechet_distance(x, y) == pytest.approx(1 + 3 * (2 - 1) ** 2, rel=0.1)
