"""The differentiable SSIM map agrees with MONAI's, and says something."""

import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs

from pipeline.metrics.ssim import LOSS_RADIUS, SSIM_SIGMA, ssim_map

SHAPE = (2, 1, 11, 13, 12)


def test_it_is_monais_map_away_from_the_border():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SHAPE, generator=generator)
    y = (x + 0.2 * torch.rand(SHAPE, generator=generator)).clamp(0, 1)
    size = (2 * LOSS_RADIUS + 1,) * 3
    expected, _ = compute_ssim_and_cs(
        y, x, spatial_dims=3, kernel_size=size, kernel_sigma=(SSIM_SIGMA,) * 3, data_range=1.0
    )
    inner = slice(LOSS_RADIUS, -LOSS_RADIUS)
    found = ssim_map(x, y)[:, :, inner, inner, inner]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_equal_volumes_reach_one_and_its_gradient_improves_a_guess():
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
    assert ssim_map(x, x).min() == pytest.approx(1)
    guess = torch.full(SHAPE, 0.5, requires_grad=True)
    before = ssim_map(x, guess).mean()
    before.backward()
    assert guess.grad is not None
    after = ssim_map(x, (guess + 50 * guess.grad).detach()).mean()
    assert after > before


def flat_tissue(seed: int) -> torch.Tensor:
    """Return a volume whose variance within a window is far below its mean square."""
    generator = torch.Generator().manual_seed(seed)
    return 0.9 + 1e-4 * torch.randn((1, 1, 24, 25, 23), generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_similarity_never_exceeds_one_where_tissue_is_flat(seed):
    x = flat_tissue(seed)
    assert ssim_map(x, x).max() <= 1
    assert ssim_map(x, x).min() == 1
    assert ssim_map(x, flat_tissue(seed + 10)).max() <= 1


def test_mixed_precision_does_not_touch_it():
    generator = torch.Generator().manual_seed(2)
    x = 0.6 + 0.01 * torch.randn(SHAPE, generator=generator)
    y = x + 0.01 * torch.randn(SHAPE, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ssim_map(x, y)
    torch.testing.assert_close(mixed, ssim_map(x, y), atol=0, rtol=0)
