"""Principal modes of latents: told to y_sem, and back to where things are."""

import pytest
import torch

from pipeline.nets.denoiser import Denoiser, GradientEstimator, UnetConfig
from pipeline.nets.principal_modes import OtherPeople, PrincipalModes
from pipeline.nets.semantic import LatentEncoder
from tests.support.tiny_modes import (
    CONFIG,
    SCANS,
    SHAPE,
    deviations,
    encoder_and_estimator,
)


def test_all_modes_bring_every_training_latent_back():
    modes = PrincipalModes(count=12, shape=SHAPE)
    modes.fit(deviations(), torch.arange(SCANS))
    amounts = modes.project(deviations())
    assert amounts[:, SCANS - 1 :].abs().max() < 1e-5
    assert amounts.square().mean(0)[: SCANS - 1].mean() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(modes.compose(amounts), deviations(), atol=1e-4, rtol=1e-4)


def test_the_first_modes_are_the_largest():
    modes = PrincipalModes(count=3, shape=SHAPE)
    modes.fit(deviations(), torch.arange(SCANS))
    sizes = modes.project(deviations()).square().mean(0)
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_encoder_sees_a_mode_and_the_estimator_shows_where_it_is():
    torch.manual_seed(0)
    encoder = LatentEncoder(
        in_channels=2, grid=SHAPE[1:], channels=(8, 16), dim=6, num_heads=2, modes=4
    )
    assert encoder.modes is not None
    encoder.modes.fit(deviations(), torch.arange(SCANS))
    encoder.estimate_output_statistics([deviations()])
    moved = deviations()[:1] + 3 * encoder.modes.size * encoder.modes.modes[:1]
    assert (encoder(moved) - encoder(deviations()[:1])).norm() > 0.5

    config = UnetConfig(
        in_channels=2, base_channels=8, multipliers=(1, 2), num_res_blocks=1, attention_levels=()
    )
    estimator = GradientEstimator(config, semantic_dim=6, modes=4, grid=SHAPE[1:])
    assert estimator.modes is not None
    estimator.modes.load_state_dict(encoder.modes.state_dict())
    torch.nn.init.normal_(estimator.decoder.out.weight, std=0.1)
    trunk = Denoiser(config).trunk(torch.randn(1, *SHAPE), torch.tensor([5.0]))
    # The padded grid is larger than the latent's own, and odd sizes are no trouble.
    assert estimator(trunk, torch.zeros(1, 6)).shape == (1, *SHAPE)
    one, other = (estimator.rough_latent(y) for y in (torch.zeros(1, 6), torch.ones(1, 6)))
    assert (one - other).abs().max() > 1e-3


def test_g_begins_at_zero_outside_the_modes():
    _, estimator = encoder_and_estimator()
    trunk = Denoiser(CONFIG).trunk(torch.randn(2, *SHAPE), torch.tensor([5.0, 900.0]))
    assert not estimator(trunk, torch.randn(2, 7)).any()


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 1e-4])
def test_amounts_in_y_sem_make_the_noise_exact_in_their_subspace(alpha_bar):
    """Of scans that no mode was fitted on, far from Gaussian, whatever the network predicts."""
    encoder, estimator = encoder_and_estimator()
    z_0 = torch.randn(6, *SHAPE).sign() * 3 + torch.randn(6, *SHAPE) ** 3
    eps, predicted = torch.randn(2, 6, *SHAPE)
    alpha, sigma = torch.full((6,), alpha_bar).sqrt(), torch.full((6,), 1 - alpha_bar).sqrt()
    x_t = alpha[0] * z_0 + sigma[0] * eps
    exact = estimator.exact_noise(predicted, x_t, encoder(z_0), alpha, sigma)

    def amounts(field):
        return estimator.modes.project(field / estimator.spread)

    torch.testing.assert_close(amounts(exact), amounts(eps), atol=2e-3, rtol=2e-3)
    before = (eps - predicted).square().sum((1, 2, 3, 4))
    after = (eps - exact).square().sum((1, 2, 3, 4))
    assert (after < before).all()
    # Nothing else is moved: the change is the smallest that does it.
    other = exact - predicted
    again = estimator.modes.lift(amounts(other), estimator.spread)
    torch.testing.assert_close(again, other, atol=1e-4, rtol=1e-3)


def test_fewer_scans_than_modes_leave_the_other_amounts_zero():
    modes = PrincipalModes(count=6, shape=SHAPE)
    modes.fit(deviations()[:4] - deviations()[:4].mean(0), torch.arange(4))
    measured = modes.project(deviations())
    assert not measured[:, 3:].any()
    assert torch.isfinite(modes.lift(measured, torch.ones(SHAPE))).all()


def test_training_sees_amounts_as_doubtful_as_those_of_unseen_scans():
    """Few scans of many dimensions: PCA explains the fitted ones far better than others."""
    generator = torch.Generator().manual_seed(1)
    loud = 3 * torch.randn(2, *SHAPE, generator=generator)

    def scans(count: int) -> torch.Tensor:
        amounts = torch.randn(count, 2, generator=generator)
        quiet = torch.randn(count, *SHAPE, generator=generator)
        return quiet + torch.einsum("nk,kcxyz->ncxyz", amounts, loud)

    known, unseen = scans(40), scans(4000)
    modes = PrincipalModes(count=8, shape=SHAPE)
    modes.fit(known - known.mean(0), torch.arange(40) // 8)
    assert (modes.reliability[:2] > 0.8).all()
    assert (modes.reliability[2:] < 0.35).all()
    centred = (known - known.mean(0)).repeat(500, 1, 1, 1, 1)
    noise = torch.randn(len(centred), 8, generator=generator)
    true = modes.project(centred)
    seen = modes.with_noise(true, noise)
    new = modes.project(unseen - known.mean(0))
    torch.testing.assert_close(seen.std(0)[2:], new.std(0)[2:], rtol=0.2, atol=0)
    # The best guess of the true amount is the one seen.
    slope = (seen * true).mean(0) / seen.square().mean(0)
    torch.testing.assert_close(slope, torch.ones(8), rtol=0.06, atol=0)


@pytest.mark.parametrize("scans", [2, 3, 5])
def test_modes_of_very_few_scans_are_not_trusted(scans):
    modes = PrincipalModes(count=4, shape=SHAPE)
    modes.fit(deviations()[:scans] - deviations()[:scans].mean(0), torch.arange(scans))
    measured = modes.project(deviations())
    assert torch.isfinite(modes.with_noise(measured, torch.ones(SCANS, 4))).all()
    assert (modes.reliability < 0.5).all()


def scans_of(count: int, *, seed: int) -> torch.Tensor:
    """Brains that differ in six fields and in noise."""
    fields = 3 * torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(seed)
    amounts = torch.randn(count, 6, generator=generator)
    return torch.einsum("nk,kcxyz->ncxyz", amounts, fields) + torch.randn(
        count, *SHAPE, generator=generator
    )


def test_modes_with_those_of_other_people_are_as_if_all_had_been_scanned():
    """Both together, from 60 scans, and from 8 of them beside the mean and modes of the others."""
    scans = scans_of(60, seed=1)
    centre = scans.mean(0)
    few, many = scans[:8], scans[8:]
    theirs = many - many.mean(0)
    _, long, modes = torch.linalg.svd(theirs.flatten(1), full_matrices=False)
    fields = (long[:, None] / len(many) ** 0.5 * modes).reshape(-1, *SHAPE)
    others = OtherPeople(len(many), many.mean(0) - centre, fields)
    together, merged = (PrincipalModes(count=6, shape=SHAPE) for _ in range(2))
    together.fit(scans - centre, torch.zeros(60))
    merged.fit(few - centre, torch.zeros(8), others=others)
    same = torch.einsum("kcxyz,lcxyz->kl", together.modes, merged.modes).abs()
    torch.testing.assert_close(same, torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(merged.spread, together.spread, rtol=1e-3, atol=0)


def test_modes_of_other_people_hold_more_of_an_unseen_person_than_a_few_scans_alone():
    few, many, unseen = (scans_of(n, seed=s) for n, s in ((5, 2), (200, 3), (50, 4)))
    _, long, modes = torch.linalg.svd((many - many.mean(0)).flatten(1), full_matrices=False)
    fields = (long[:6, None] / len(many) ** 0.5 * modes[:6]).reshape(-1, *SHAPE)
    others = OtherPeople(50, many.mean(0), fields)
    alone, merged = (PrincipalModes(count=6, shape=SHAPE) for _ in range(2))
    left_alone = alone.fit(few - few.mean(0), torch.arange(5))
    left_merged = merged.fit(few, torch.arange(5), others=others)
    assert left_merged.mean() < 0.5 * left_alone.mean()

    def left(modes: PrincipalModes) -> float:
        amounts = modes.project(unseen)
        return float((unseen - modes.compose(amounts)).square().mean())

    assert left(merged) < 0.5 * left(alone)
    # What folds leave over is what modes leave over of an unseen person.
    assert float(left_merged.mean()) == pytest.approx(left(merged), rel=0.25)


def test_an_estimator_reads_amounts_of_new_modes_as_it_read_the_old_ones():
    """Same deviations, other modes of the same subspace, another centre and unit."""
    encoder, estimator = encoder_and_estimator()
    z_0 = estimator.centre + estimator.spread * estimator.modes.compose(torch.randn(5, 4))
    old = estimator.embed(
        torch.cat([encoder.modes.project(encoder.deviation(z_0)), torch.ones(5, 3)], 1)
    )
    before = estimator.measures()
    turn = torch.linalg.qr(torch.randn(4, 4))[0]
    for modes in (encoder.modes, estimator.modes):
        modes.modes.copy_(torch.einsum("kl,lcxyz->kcxyz", turn, before.modes))
        modes.size.mul_(1.7)
    moved = estimator.centre + 0.3 * estimator.spread * before.modes[1]
    encoder.set_input_statistics(moved, 2 * estimator.spread)
    estimator.centre.copy_(moved)
    estimator.spread.mul_(2)
    estimator.read_as(before)
    amounts = encoder.modes.project(encoder.deviation(z_0))
    new = estimator.embed(torch.cat([amounts, torch.ones(5, 3)], dim=1))
    torch.testing.assert_close(new, old, atol=1e-4, rtol=1e-4)
