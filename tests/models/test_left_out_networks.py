"""Networks whose weight is 0 at a timestep are not run, which changes no bit of the noise."""

from copy import deepcopy

import pytest
import torch

from pipeline.nets.gaussian_prior import NODES

LAST = 999.0


@pytest.fixture
def net(models):
    """An LDAE that leaves noise to the closed form where there is much, as the bundled one does."""
    net = deepcopy(models.ldae.net)
    late = torch.arange(NODES) >= 4
    net.estimator.prior.trust.copy_(torch.where(late, 0.0, 0.6))
    net.estimator.gain.copy_(torch.where(late, 0.3, 1.2))
    net.estimator.gain[0] = 0
    return net


@pytest.mark.slow
@pytest.mark.parametrize(
    ("t", "denoiser", "learned"), [(0.0, 1, 0), (300.0, 1, 1), (600.0, 0, 1), (LAST, 0, 1)]
)
def test_what_has_no_weight_is_not_run(models, net, t, denoiser, learned):
    torch.manual_seed(0)
    x_t, times = torch.randn(2, *models.latent_shape), torch.full((2,), t)
    y_sem = torch.randn(2, net.encoder.dim)
    run = []
    net.diffusion.denoiser.decoder.register_forward_hook(lambda *_: run.append("denoiser"))
    net.estimator.decoder.register_forward_hook(lambda *_: run.append("learned"))
    with torch.no_grad():
        noise = net.model(y_sem)(x_t, times)
        assert (run.count("denoiser"), run.count("learned")) == (denoiser, learned)
        assert torch.equal(noise, net.noises(x_t, times, [y_sem])[0])
        run.clear()
        closed_form = net.model(y_sem, learned=False)(x_t, times)
        assert (run.count("denoiser"), run.count("learned")) == (denoiser, 0)
        assert torch.equal(closed_form, net.mode_noise(x_t, times, y_sem))


@pytest.mark.slow
def test_both_are_left_out_where_neither_has_weight(models, net):
    net.estimator.gain.zero_()
    net.diffusion.denoiser.encoder.register_forward_hook(lambda *_: pytest.fail("run"))
    x_t, times = torch.randn(1, *models.latent_shape), torch.tensor([LAST])
    y_sem = torch.randn(1, net.encoder.dim)
    with torch.no_grad():
        noise = net.model(y_sem)(x_t, times)
    assert noise.isfinite().all()
    assert noise.any()
