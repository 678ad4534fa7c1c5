"""A smaller grid with the same centre: what is missing is air, which no brain deviates by."""

import pytest
import torch

from pipeline.models.ldae import Standardise
from pipeline.nets.centred import centred
from pipeline.nets.denoiser import Denoiser
from pipeline.nets.semantic import LatentSlicesEncoder
from tests.support.tiny_modes import CONFIG, SHAPE, encoder_and_estimator

SMALLER = (3, 2, 5)
INSIDE = (..., slice(1, 4), slice(2, 4), slice(1, 6))


def amid_air(encoder) -> torch.Tensor:
    """Return latents of the own grid that are the mean latent around the smaller one."""
    z_0 = encoder.centre.expand(6, *SHAPE).clone()
    z_0[INSIDE] += torch.randn(6, SHAPE[0], *SMALLER)
    return z_0


def test_a_field_is_cut_and_filled_about_its_centre():
    field = torch.randn(SHAPE)
    cut = centred(field, SMALLER)
    assert torch.equal(cut, field[INSIDE])
    filled = centred(cut, SHAPE[1:])
    assert torch.equal(filled[INSIDE], cut)
    assert filled.count_nonzero() == cut.numel()


def test_grids_whose_voxels_do_not_coincide_are_not_mixed():
    with pytest.raises(AssertionError):
        centred(torch.zeros(SHAPE), (4, 2, 5))


@pytest.mark.parametrize("grid", [SMALLER, SHAPE[1:]])
def test_statistics_are_cut_to_the_grid_that_they_meet(grid):
    standardise, latent = Standardise(SHAPE), torch.randn(2, *SHAPE)
    shift, scale = torch.randn(SHAPE), 0.5 + torch.rand(SHAPE)
    standardise.set_statistics(shift, scale, torch.ones(2, 1, 1, 1))
    part = centred(latent, grid)
    assert torch.equal(standardise(part), centred(standardise(latent), grid))
    torch.testing.assert_close(standardise.inverse(standardise(part)), part)


def test_statistics_of_a_channel_serve_every_grid():
    standardise = Standardise((2, 1, 1, 1))
    standardise.set_statistics(*torch.full((2, 2, 1, 1, 1), 3.0), torch.ones(2, 1, 1, 1))
    assert torch.equal(standardise(torch.ones(1, 2, *SMALLER)), -6 * torch.ones(1, 2, *SMALLER))


def test_y_sem_is_that_of_the_whole_where_air_is_missing():
    encoder, _ = encoder_and_estimator()
    z_0 = amid_air(encoder)
    torch.testing.assert_close(encoder(z_0[INSIDE]), encoder(z_0))


def test_slices_of_air_are_missing_for_nobody():
    torch.manual_seed(0)
    encoder = LatentSlicesEncoder(
        in_channels=2, grid=SHAPE[1:], channels=(8, 16), dim=7, num_heads=2, modes=0
    ).eval()
    encoder.set_input_statistics(torch.randn(SHAPE), 0.5 + torch.rand(SHAPE))
    z_0 = amid_air(encoder)
    torch.testing.assert_close(encoder(z_0[INSIDE]), encoder(z_0))


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 1e-4])
def test_amounts_make_the_noise_exact_on_a_smaller_grid_too(alpha_bar):
    """In the subspace of the modes as they are cut, of latents far from Gaussian."""
    encoder, estimator = encoder_and_estimator()
    z_0 = torch.randn(6, 2, *SMALLER) ** 3
    eps, predicted = torch.randn(2, 6, 2, *SMALLER)
    alpha, sigma = torch.full((6,), alpha_bar).sqrt(), torch.full((6,), 1 - alpha_bar).sqrt()
    x_t = alpha[0] * z_0 + sigma[0] * eps
    exact = estimator.exact_noise(predicted, x_t, encoder(z_0), alpha, sigma)
    measures = (estimator.modes.modes[INSIDE] / estimator.spread[INSIDE]).flatten(1)
    error = (exact - eps).flatten(1) @ measures.T
    assert error.abs().max() < 2e-3 * ((predicted - eps).flatten(1) @ measures.T).abs().max() + 2e-3
    before, after = ((eps - e).square().sum((1, 2, 3, 4)) for e in (predicted, exact))
    assert (after < before).all()


def test_the_estimator_shows_its_modes_on_a_smaller_grid():
    _, estimator = encoder_and_estimator()
    torch.nn.init.normal_(estimator.decoder.out.weight, std=0.1)
    trunk = Denoiser(CONFIG).trunk(torch.randn(1, 2, *SMALLER), torch.tensor([5.0]))
    one, other = (estimator(trunk, y) for y in (torch.zeros(1, 7), torch.ones(1, 7)))
    assert one.shape == (1, 2, *SMALLER)
    assert (one - other).abs().max() > 1e-3
