"""The factor of G's field at each timestep."""

import torch

from pipeline.diffusion.gain_fit import MOST_GAIN, best_gain

PEOPLE = ["a", "a", "b", "c", "d"]


def products(field: torch.Tensor, missed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of fields and misses (scan, node, voxel)."""
    return (field * missed).sum(2), field.square().sum(2)


def test_the_gain_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    field = torch.randn((5, 3, 4000), generator=generator, dtype=torch.float64)
    true = torch.tensor([0.2, 1.0, 3.0])[None, :, None]
    missed = true * field + torch.randn(field.shape, generator=generator, dtype=torch.float64)
    gain = best_gain(*products(field, missed), PEOPLE)
    torch.testing.assert_close(gain, true.ravel().double(), atol=0.03, rtol=0)


def test_a_field_that_helps_nobody_else_is_left_out() -> None:
    """It fits the noise of one person, or points away from what is missed."""
    generator = torch.Generator().manual_seed(1)
    field = torch.randn((5, 2, 500), generator=generator, dtype=torch.float64)
    missed = torch.stack([-field[:, 0], torch.zeros(5, 500, dtype=torch.float64)], dim=1)
    missed[4, 1] = 0.1 * field[4, 1]
    missed[:4, 1] = -0.02 * field[:4, 1]
    assert best_gain(*products(field, missed), PEOPLE).tolist() == [0, 0]


def test_the_gain_has_an_upper_limit_and_needs_no_field() -> None:
    field = torch.ones((5, 2, 10), dtype=torch.float64)
    field[:, 1] = 0
    gain = best_gain(*products(field, 100 * torch.ones_like(field)), PEOPLE)
    assert gain.tolist() == [MOST_GAIN, 0]
