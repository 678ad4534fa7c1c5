"""The noise of Gaussian latents, and its mixture with a denoiser's."""

import torch

from pipeline.nets.gaussian_prior import NODES, GaussianPrior, between_nodes

SHAPE = (2, 3, 4, 5)


def prior(variance: torch.Tensor) -> GaussianPrior:
    made = GaussianPrior(SHAPE)
    made.variance.copy_(variance)
    return made


def columns(*values: float) -> list[torch.Tensor]:
    return [torch.full((1, 1, 1, 1, 1), value) for value in values]


def test_no_linear_guess_of_the_noise_of_gaussian_latents_is_better() -> None:
    """The slope of noise on x_t over many draws is that of the closed form, voxel by voxel."""
    generator = torch.Generator().manual_seed(0)
    variance = 0.1 + 2 * torch.rand(SHAPE, generator=generator)
    mean = torch.randn(SHAPE, generator=generator)
    alpha, sigma = columns(0.6, 0.8)
    eps = torch.randn((40_000, *SHAPE), generator=generator)
    z_0 = mean + variance.sqrt() * torch.randn(eps.shape, generator=generator)
    x_t = alpha * z_0 + sigma * eps
    guess = prior(variance).noise(x_t, mean, alpha, sigma)
    rest = eps - guess
    torch.testing.assert_close(rest.mean(0), torch.zeros(SHAPE), atol=0.03, rtol=0)
    covariance = (rest * (x_t - alpha * mean)).mean(0)
    torch.testing.assert_close(covariance, torch.zeros(SHAPE), atol=0.03, rtol=0)


def test_full_trust_is_the_denoiser_to_the_last_bit_and_none_is_the_closed_form() -> None:
    made = prior(torch.rand(SHAPE) + 0.1)
    eps, x_t, mean = torch.randn(3, 2, *SHAPE)
    place = torch.tensor([0.0, 0.37])
    given = (x_t, mean, *columns(0.5, 0.9))
    assert torch.equal(made.mixed(eps, *given, place), eps)
    made.trust.zero_()
    assert torch.equal(made.mixed(eps, *given, place), made.noise(*given))


def test_weights_are_linear_between_nodes_and_end_at_the_last() -> None:
    weights = torch.arange(NODES).float()
    place = torch.tensor([0.0, 0.5 / (NODES - 1), 0.5, 1.0])
    expected = torch.tensor([0.0, 0.5, (NODES - 1) / 2, NODES - 1])
    torch.testing.assert_close(between_nodes(weights, place), expected)
