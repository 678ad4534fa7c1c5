"""The nearest latent of a scan."""

import numpy as np

from pipeline.rivals.nearest_latents import Neighbours


def test_the_nearest_latent_of_a_scan_is_its_own(latents, scans):
    known = Neighbours.of(latents, scans)
    latent = latents.load(["sub-003"]).mean.float()
    assert known.nearest(latent.flatten(1).numpy()) == ["sub-003"]
    assert known.distances(known.sample()[:2]).shape == (2, 20)


def test_the_nearest_is_searched_among_all(latents, scans, monkeypatch):
    """Blocks bound the memory, not the search."""
    monkeypatch.setattr("pipeline.rivals.nearest_latents.MAX_LATENTS", 3)
    known = Neighbours.of(latents, scans)
    own = known.latents.astype(np.float32)
    assert known.nearest(own) == list(known.subjects)
    assert len(known.sample()) == 3


def test_a_scan_itself_can_be_left_out(latents, scans):
    known = Neighbours.of(latents, scans)
    own = latents.load(["sub-003"]).mean.float().flatten(1).numpy()
    (other,) = known.nearest(own, without="sub-003")
    assert other != "sub-003"
    assert known.scans_of("sub-003") == 1
