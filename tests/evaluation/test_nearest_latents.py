"""The nearest latent of a scan."""

import numpy as np
import pytest

from pipeline.evaluation.nearest_latents import Neighbours


@pytest.mark.slow
def test_the_nearest_latent_of_a_scan_is_its_own(study):
    known = Neighbours.of(study, study.scans)
    latent = study.latents.load(["sub-003"]).mean.float()
    assert known.nearest(latent.flatten(1).numpy()) == ["sub-003"]
    assert known.distances(known.sample()[:2]).shape == (2, 20)


@pytest.mark.slow
def test_the_nearest_is_searched_among_all(study, monkeypatch):
    """Blocks bound the memory, not the search."""
    monkeypatch.setattr("pipeline.evaluation.nearest_latents.MAX_LATENTS", 3)
    known = Neighbours.of(study, study.scans)
    own = known.latents.astype(np.float32)
    assert known.nearest(own) == list(known.subjects)
    assert len(known.sample()) == 3
