"""Architectures: published sizes, any grid, gradients that are right in bf16."""

import pytest
import torch

from pipeline.nets.blocks import Conv3d, Resample
from pipeline.nets.cpu_kernels import convolve_repeated
from pipeline.nets.denoiser import Denoiser, GradientEstimator, UnetConfig
from pipeline.nets.semantic import LatentEncoder

SMALL = UnetConfig(
    in_channels=3, base_channels=8, multipliers=(1, 2), num_res_blocks=1, attention_levels=(1,)
)
PAPER = UnetConfig(
    in_channels=3,
    base_channels=256,
    multipliers=(1, 2, 3),
    num_res_blocks=2,
    attention_levels=(1, 2),
    dropout=0.1,
    pooling="anisotropic",
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_paper_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(Denoiser(PAPER)) == pytest.approx(487e6, rel=0.01)
        assert count(GradientEstimator(PAPER, semantic_dim=768)) == pytest.approx(378e6, rel=0.01)


@pytest.mark.parametrize("pooling", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("grid", [(7, 8, 9), (5, 6, 4), (2, 3, 2)])
def test_any_grid_comes_back_as_it_went_in(grid, pooling):
    config = UnetConfig(
        in_channels=3,
        base_channels=8,
        multipliers=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        pooling=pooling,
    )
    denoiser, estimator = Denoiser(config), GradientEstimator(config, semantic_dim=5)
    x_t, t = torch.randn(2, 3, *grid), torch.tensor([3.0, 700.5])
    assert denoiser(x_t, t).shape == x_t.shape
    assert estimator(denoiser.trunk(x_t, t), torch.randn(2, 5)).shape == x_t.shape


def test_outputs_start_at_zero():
    denoiser, estimator = Denoiser(SMALL), GradientEstimator(SMALL, semantic_dim=5)
    x_t, t = torch.randn(1, 3, 7, 8, 9), torch.tensor([1.0])
    assert not denoiser(x_t, t).any()
    assert not estimator(denoiser.trunk(x_t, t), torch.randn(1, 5)).any()


def test_shared_trunk_equals_separate_calls():
    torch.manual_seed(0)
    denoiser, estimator = Denoiser(SMALL), GradientEstimator(SMALL, semantic_dim=5)
    for p in estimator.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x_t, t, y_sem = torch.randn(2, 3, 7, 8, 9), torch.tensor([5.0, 9.0]), torch.randn(2, 5)
    once = denoiser.trunk(x_t, t)
    torch.testing.assert_close(estimator(once, y_sem), estimator(denoiser.trunk(x_t, t), y_sem))
    assert not torch.equal(estimator(once, y_sem), estimator(once, y_sem.flip(0)))


def test_samples_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    denoiser = Denoiser(SMALL)
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x_t, t = torch.randn(3, 3, 7, 8, 9), torch.tensor([1.0, 500.0, 900.0])
    torch.testing.assert_close(
        denoiser(x_t, t)[1:2], denoiser(x_t[1:2], t[1:2]), atol=1e-4, rtol=1e-3
    )


def test_the_last_plane_of_an_odd_axis_is_read():
    torch.manual_seed(0)
    encoder = LatentEncoder(in_channels=2, grid=(7, 8, 9), channels=(8, 8), dim=5, num_heads=2)
    z_0 = torch.randn(1, 2, 7, 8, 9)
    other = z_0.clone()
    other[..., -1] += 1
    inner = torch.randn(1, 2, 7, 8, 9)
    assert not torch.allclose(encoder.summarise(z_0), encoder.summarise(other), atol=1e-4)
    down = Resample("down", (2, 2, 2))
    pooled = down(inner)
    assert pooled.shape[2:] == (4, 4, 5)
    torch.testing.assert_close(pooled[..., -1, -1, -1], inner[..., -1, -2:, -1].mean(-1))


def test_latent_encoder_reads_places_not_only_averages():
    torch.manual_seed(0)
    encoder = LatentEncoder(in_channels=3, grid=(8, 10, 12), channels=(8, 16), dim=7, num_heads=2)
    for p in encoder.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.2)
    z_0 = torch.zeros(2, 3, 8, 10, 12)
    z_0[0, :, 1:3, 2:4, 2:4] = 3
    z_0[1, :, 5:7, 6:8, 8:10] = 3
    y_sem = encoder(z_0)
    assert y_sem.shape == (2, 7)
    assert not torch.allclose(y_sem[0], y_sem[1], atol=1e-3)


@pytest.mark.parametrize("grid", [(2, 2, 2), (2, 3, 2), (4, 5, 4), (8, 9, 10)])
def test_bf16_weight_gradients_agree_with_fp32(grid):
    torch.manual_seed(0)
    conv = Conv3d(48, 48, 3, padding=1)
    x = torch.randn(8, 48, *grid)
    gradients = []
    for enabled in (False, True):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = conv(x)
        out.float().square().mean().backward()
        gradients.append(conv.weight.grad.clone())
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 0.02


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("grid", [(2, 3, 2), (9, 8, 7)])
def test_a_scan_alone_is_convolved_as_among_others(grid, kernel, monkeypatch):
    used = []
    original = torch.mkldnn_convolution
    monkeypatch.setattr(
        torch, "mkldnn_convolution", lambda *args: used.append(args) or original(*args)
    )
    conv = Conv3d(5, 6, kernel, padding=kernel // 2)
    x = torch.randn(3, 5, *grid)
    with torch.inference_mode():
        alone, among = conv(x[:1]), conv(x)[:1]
    assert len(used) == (kernel > 1)
    torch.testing.assert_close(alone, among)
    conv(x[:1]).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3)])
def test_a_convolution_of_repeated_voxels_needs_no_repetition(stride):
    torch.manual_seed(0)
    conv = Conv3d(5, 6, 3, padding=1)
    x = torch.randn(2, 5, 7, 8, 9, requires_grad=True)
    ways = []
    for out in (convolve_repeated(conv, x, stride), conv(Resample("up", stride)(x))):
        gradients = torch.autograd.grad(out.square().sum(), [x, conv.weight, conv.bias])
        ways.append([out, *gradients])
    for ours, plain in zip(*ways, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("grid", [(2, 2, 2), (2, 3, 2), (4, 5, 4), (8, 9, 10)])
def test_bf16_gradients_of_repeated_voxels_agree_with_fp32(grid):
    torch.manual_seed(0)
    conv = Conv3d(48, 48, 3, padding=1)
    x = torch.randn(8, 48, *grid)
    gradients = []
    for enabled in (False, True):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = convolve_repeated(conv, x, (2, 2, 2))
        out.float().square().mean().backward()
        gradients.append(conv.weight.grad.clone())
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 0.02
