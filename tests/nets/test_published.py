"""The published semantic encoder, in pieces."""

import pytest
import torch

from pipeline.nets.published import PublishedEncoder, sinusoids
from schemas.diffusion import SemanticEncoderParams
from tests.support import published_layout as layout


def test_the_published_encoder_learns_in_pieces_what_it_learns_at_once(monkeypatch):
    torch.manual_seed(0)
    net = PublishedEncoder(channels=(8, 16), depths=(1, 1), num_slices=5, dim=16, num_heads=2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    volume = torch.rand(2, 1, 16, 24, 5)
    found = []
    for size in (1000, 3):
        monkeypatch.setattr("pipeline.nets.published.IMAGES_AT_A_TIME", size)
        net.zero_grad()
        net(volume).square().sum().backward()
        found.append({n: p.grad.clone() for n, p in net.named_parameters()})
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_positions_are_sines_at_even_and_cosines_at_odd_places():
    torch.testing.assert_close(sinusoids(9, 12), layout.positions(9, 12), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dim": 12}, "dim 12: published has 16"),
        ({"dim": 16, "num_slices": 4}, "num_slices: published reads every slice"),
    ],
)
def test_settings_that_the_published_encoder_cannot_have_are_refused(changes, expected):
    shared = {"kind": "published", "channels": (8, 16), "depths": (1, 1), "num_heads": 2}
    with pytest.raises(ValueError, match=expected):
        SemanticEncoderParams(**shared, **changes)
