"""Tissue fractions, what reads them from latents, and their place in y_sem."""

import pytest
import torch

from pipeline.nets.semantic import LOUDNESS, build_encoder
from pipeline.nets.tissue import TissueModes, tissue_fractions

GRID = (4, 4, 4)
SCANS = 12


def encoder(**changes):
    torch.manual_seed(0)
    sizes = {"in_channels": 2, "grid": GRID, "channels": (4, 8), "dim": 16, "num_heads": 2}
    return build_encoder(**sizes | {"modes": 5, "tissue_modes": 4, "tissue_width": 6} | changes)


def latents(seed=1, count=SCANS):
    return torch.randn(count, 2, *GRID, generator=torch.Generator().manual_seed(seed))


def fitted():
    """An encoder whose modes of latents and of tissue are fitted on the same scans."""
    net, z_0 = encoder(), latents()
    net.modes.fit(z_0 - z_0.mean(0), torch.arange(SCANS) % 3)
    maps = net.tissue.fractions(z_0)
    net.tissue.centre.copy_(maps.mean(0))
    net.tissue.modes.fit((maps - maps.mean(0)).detach(), torch.arange(SCANS) % 3)
    return net.eval(), z_0


def test_fractions_are_shares_of_fluid_grey_and_white_voxels():
    volume = torch.zeros(1, 1, 4, 4, 4)
    volume[..., :2, :] = 0.2
    volume[..., 2, :] = 0.6
    volume[:, :, :2, 3] = 0.9  # half of a slice; the rest is air
    fluid, grey, white = tissue_fractions(volume, 4).flatten().tolist()
    assert (fluid, grey, white) == pytest.approx((0.5, 0.25, 0.125), abs=0.01)


def test_air_has_no_tissue():
    assert not tissue_fractions(torch.zeros(1, 1, 4, 4, 4), 2).any()


def test_parts_of_y_sem_are_modes_then_tissue_then_summary():
    net, z_0 = fitted()
    y_sem, parts = net(z_0), net.parts()
    assert parts == {"modes": slice(0, 5), "tissue": slice(5, 9), "summary": slice(9, 16)}
    deviation = net.deviation(z_0)
    torch.testing.assert_close(y_sem[:, parts["modes"]], net.modes.project(deviation))
    torch.testing.assert_close(y_sem[:, parts["tissue"]], net.tissue(deviation))
    assert set(encoder(tissue_modes=0).parts()) == {"modes", "summary"}
    assert set(encoder(modes=0, tissue_modes=0).parts()) == {"summary"}


def test_amounts_keep_their_order_of_size_and_have_a_mean_square_of_one():
    net, z_0 = fitted()
    amounts = net(z_0)[:, net.parts()["tissue"]].detach()
    spread = (amounts - amounts.mean(0)).square().mean(0)
    assert (spread.diff() <= 1e-6).all()
    assert spread.mean().item() == pytest.approx(1, abs=1e-3)


def test_training_gives_g_doubtful_amounts_of_both_kinds_of_modes_and_the_summary_as_it_is():
    net, z_0 = fitted()
    y_sem, parts = net(z_0), net.parts()
    noised = net.with_mode_noise(y_sem, torch.Generator().manual_seed(0))
    for name in ("modes", "tissue"):
        assert not torch.equal(noised[:, parts[name]], y_sem[:, parts[name]])
    assert torch.equal(noised[:, parts["summary"]], y_sem[:, parts["summary"]])


def test_a_summary_beside_amounts_is_quiet_and_alone_it_is_not():
    for changes, loudness in (({}, LOUDNESS["summary"]), ({"modes": 0, "tissue_modes": 0}, 1.0)):
        net, z_0 = encoder(**changes).eval(), latents()
        expected = loudness * net.standardise(net.summarise(net.deviation(z_0)))
        torch.testing.assert_close(net(z_0)[:, net.parts()["summary"]], expected)


def test_the_tissue_net_is_frozen():
    net, z_0 = fitted()
    net(z_0).sum().backward()
    assert not any(parameter.requires_grad for parameter in net.tissue.parameters())
    assert any(parameter.grad is not None for parameter in net.stem.parameters())


def test_a_latent_is_put_together_from_mean_and_deviation():
    """Fractions depend on the latent as the store has it, whatever mean and unit a study has."""
    torch.manual_seed(0)
    tissue = TissueModes(count=2, in_channels=2, grid=GRID, width=6)
    latent = latents(3, 2)
    expected = tissue.fractions(latent)
    mean, unit = latents(4, 1)[0], torch.tensor([2.0, 0.5]).reshape(2, 1, 1, 1)
    tissue.mean_latent.copy_(mean)
    tissue.unit.copy_(unit)
    torch.testing.assert_close(tissue.fractions((latent - mean) / unit), expected)
