"""Schedule, losses and samplers against closed forms. An exact denoiser is the oracle: a good
round trip alone would not prove a good inversion."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler

from pipeline.diffusion.losses import min_snr_weight, noise_loss, pdae_weight, shift_coefficient
from pipeline.diffusion.samplers import invert, sample
from pipeline.diffusion.schedule import Schedule, alpha_sigma

SCHEDULE = Schedule()


def gaussian_model(std: float):
    """The exact eps of x_0 ~ N(0, std²)."""

    def model(x, t):
        alpha, sigma = alpha_sigma(SCHEDULE.lambda_at(t[0]))
        return sigma * x / (alpha**2 * std**2 + sigma**2)

    return model


def mixture_model(x, t):
    """The exact eps of x_0 ~ ½ N(−1, 0.3²) + ½ N(1, 0.3²), elementwise."""
    alpha, sigma = alpha_sigma(SCHEDULE.lambda_at(t[0]))
    var = alpha**2 * 0.09 + sigma**2
    weight = torch.sigmoid(2 * alpha * x / var)
    mean = alpha * (2 * weight - 1)
    return sigma * (x - mean) / var


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_alphas_cumprod_equals_the_running_product():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_t_at_is_the_inverse_of_lambda_at(kind):
    schedule = Schedule(beta_schedule=kind)
    t = torch.tensor([0.0, 0.25, 10.5, 499.75, 998.9])
    torch.testing.assert_close(schedule.t_at(schedule.lambda_at(t)), t, atol=2e-2, rtol=0)


def test_add_noise_keeps_unit_variance():
    t = torch.tensor([0, 10, 500, 999])
    x_t = SCHEDULE.add_noise(noise(4, 1, 30, 31, 32), noise(4, 1, 30, 31, 32, seed=1), t)
    torch.testing.assert_close(x_t.flatten(1).std(1), torch.ones(4), atol=0.02, rtol=0)


@pytest.mark.parametrize("t", [0, 1, 10, 500, 999])
def test_coefficients_equal_naive_numpy(t):
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    previous = alpha_bar[t - 1] if t else 1.0
    posterior = -math.sqrt(1 - betas[t]) * (1 - previous) / math.sqrt(1 - alpha_bar[t])
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    at = torch.tensor([t])
    c_t = float(shift_coefficient(SCHEDULE, at, "posterior_mean"))
    assert c_t == pytest.approx(posterior, rel=1e-3, abs=1e-6)
    score = float(shift_coefficient(SCHEDULE, at, "score"))
    assert score == pytest.approx(-math.sqrt(1 - alpha_bar[t]), rel=1e-4)
    assert float(pdae_weight(SCHEDULE, at)) == pytest.approx(snr**0.1 / (1 + snr), rel=1e-3)


def test_both_shifts_agree_at_large_t_and_differ_at_small_t():
    t = torch.tensor([0, 1, 10, 500])
    ratio = shift_coefficient(SCHEDULE, t, "posterior_mean") / shift_coefficient(
        SCHEDULE, t, "score"
    )
    np.testing.assert_allclose(ratio.numpy(), [0, 0.45, 0.86, 0.99], atol=0.02)


def test_min_snr_caps_the_weight_in_both_targets():
    schedule = Schedule()
    t = torch.arange(1000)
    snr = schedule.snr(t).double().numpy()
    for prediction, expected in {"epsilon": snr, "v": snr + 1}.items():
        weight = min_snr_weight(schedule, t, gamma=5.0, prediction=prediction)
        np.testing.assert_allclose(weight, np.minimum(snr, 5) / expected, rtol=1e-4)


def test_noise_loss_weights_samples():
    pred = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1, 1)
    loss = noise_loss(pred, torch.zeros_like(pred), torch.tensor([1.0, 0.5]))
    assert float(loss) == pytest.approx((1 * 1 + 0.5 * 4) / 2)


@pytest.mark.parametrize("sampler", ["dpm", "dpm_data", "dpm3"])
@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_twenty_steps_invert_gaussian_data_to_standard_noise(sampler, std):
    x_0 = std * noise(2, 3, 16, 17, 18)
    options = {"sampler": sampler, "num_inference_steps": 20}
    x_T = invert(gaussian_model(std), x_0, SCHEDULE, **options)
    assert float(x_T.mean()) == pytest.approx(0, abs=0.02)
    assert float(x_T.std()) == pytest.approx(1, abs=0.04)
    made = sample(gaussian_model(std), noise(2, 3, 16, 17, 18, seed=1), SCHEDULE, **options)
    assert float(made.std()) == pytest.approx(std, rel=0.04)


def test_ddim_converges_to_the_exact_inversion_at_first_order():
    x_0 = 0.5 * noise(1, 3, 8, 9, 10)
    errors = [
        abs(
            float(
                invert(
                    gaussian_model(0.5), x_0, SCHEDULE, sampler="ddim", num_inference_steps=n
                ).std()
                / x_0.std()
            )
            - _exact_gain(0.5)
        )
        for n in (50, 100, 200)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.35)


def test_dpm_converges_faster_than_first_order():
    x_0 = 0.5 * noise(1, 3, 8, 9, 10)
    errors = [
        abs(
            float(
                invert(
                    gaussian_model(0.5), x_0, SCHEDULE, sampler="dpm", num_inference_steps=n
                ).std()
                / x_0.std()
            )
            - _exact_gain(0.5)
        )
        for n in (20, 40)
    ]
    assert errors[0] / errors[1] > 3


def _exact_gain(std):
    """How much the probability flow stretches N(0, std²) from node 0 to node T − 1."""
    ends = []
    for t in (0.0, 999.0):
        alpha, sigma = alpha_sigma(SCHEDULE.lambda_at(torch.tensor(t)))
        ends.append(math.sqrt(float(alpha) ** 2 * std**2 + float(sigma) ** 2))
    return ends[1] / ends[0]


@pytest.mark.parametrize("sampler", ["dpm", "dpm_data", "dpm3"])
def test_mixture_is_sampled_inverted_and_brought_back(sampler):
    options = {"sampler": sampler, "num_inference_steps": 30}
    modes = torch.where(torch.rand(20_000, generator=torch.Generator().manual_seed(3)) < 0.5, -1, 1)
    x_0 = (modes + 0.3 * noise(20_000, seed=4)).reshape(1, 1, 10, 40, 50)
    x_T = invert(mixture_model, x_0, SCHEDULE, **options)
    centred = x_T - x_T.mean()
    assert float(x_T.std()) == pytest.approx(1, abs=0.03)
    kurtosis = float(centred.pow(4).mean() / centred.square().mean() ** 2)
    assert kurtosis == pytest.approx(3, abs=0.15)
    back = sample(mixture_model, x_T, SCHEDULE, **options)
    assert float((back - x_0).norm() / x_0.norm()) < 0.02


def test_clipping_latents_ruins_the_inversion_while_the_round_trip_looks_perfect():
    """The defect of published code that this project does not repeat."""
    x_0 = noise(1, 3, 16, 17, 18)
    options = {"sampler": "ddim", "num_inference_steps": 100, "clip_x0": 1.0}
    x_T = invert(gaussian_model(1.0), x_0, SCHEDULE, **options)
    assert float(x_T.std()) > 10
    back = sample(gaussian_model(1.0), x_T, SCHEDULE, **options)
    assert float((back - x_0).abs().mean()) < 0.02


def test_ddim_equals_monai_step_by_step():
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        schedule="linear_beta",
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=False,
    )
    steps = 9
    nodes = torch.linspace(0, 999, steps + 1, dtype=torch.float64).long().flip(0)
    x = noise(1, 2, 5, 6, 7)
    ours = sample(mixture_model, x, SCHEDULE, sampler="ddim", num_inference_steps=steps)
    scheduler.num_inference_steps = steps
    for here, there in pairwise(nodes.tolist()):
        assert here - there == 1000 // steps, "the step back that MONAI takes"
        x, _ = scheduler.step(mixture_model(x, torch.tensor([float(here)])), here, x)
    torch.testing.assert_close(ours, x, atol=1e-4, rtol=1e-4)


def test_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="num_inference_steps"):
        sample(
            mixture_model, noise(1, 1, 2, 2, 2), SCHEDULE, sampler="ddim", num_inference_steps=1000
        )


ORDERS = {"ddim": 1, "dpm": 2, "dpm_data": 2, "dpm3": 3}
DOUBLE = Schedule().double()


@pytest.mark.parametrize("walk", [sample, invert])
@pytest.mark.parametrize("sampler", ORDERS)
def test_each_solver_converges_at_its_order_both_ways(sampler, walk):
    """On the mixture, whose flow is not linear: the error falls as steps to the power of -order."""
    start = 0.8 * noise(1, 1, 10, 20, 30).double()

    def end(steps, solver=sampler):
        return walk(mixture_model, start, DOUBLE, sampler=solver, num_inference_steps=steps)

    exact = end(960, "dpm3")
    errors = [float((end(steps) - exact).square().mean().sqrt()) for steps in (60, 120, 240)]
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert np.mean(rates) == pytest.approx(ORDERS[sampler], abs=0.35), (rates, errors)


def test_samples_of_correlated_gaussian_data_have_its_mean_and_covariance():
    """Two channels, correlated: the exact eps is linear in x_t."""
    mean = torch.tensor([0.5, -1.0])
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])

    def model(x, t):
        alpha, sigma = alpha_sigma(SCHEDULE.lambda_at(t[0]))
        precision = torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        centred = x.movedim(1, -1) - alpha * mean
        return sigma * (centred @ precision).movedim(-1, 1)

    options = {"sampler": "dpm", "num_inference_steps": 20}
    made = sample(model, noise(2, 2, 30, 31, 32), SCHEDULE, **options)
    rows = made.movedim(1, -1).reshape(-1, 2)
    torch.testing.assert_close(rows.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(rows.T.cov(), covariance, atol=0.03, rtol=0)
    x_T = invert(model, made, SCHEDULE, **options).movedim(1, -1).reshape(-1, 2)
    torch.testing.assert_close(x_T.T.cov(), torch.eye(2), atol=0.03, rtol=0)


def test_rows_of_a_batch_are_independent():
    x_T = noise(3, 1, 5, 6, 7)
    options = {"sampler": "dpm", "num_inference_steps": 5}
    together = sample(mixture_model, x_T, SCHEDULE, **options)
    alone = sample(mixture_model, x_T[1:2], SCHEDULE, **options)
    torch.testing.assert_close(together[1:2], alone)
