"""The spaces of two models, brought together where the truth is known."""

import copy

import numpy as np
import pytest
import torch

from pipeline.crossfit.alignment import (
    PairedCodes,
    RoughLatents,
    RoughTissue,
    map_amounts,
    map_between,
    turn_summaries,
)
from pipeline.models.ldae import Ldae, build_ldae, encoder_config, unet_config
from schemas.diffusion import DiffusionParams
from tests.support.tiny_training import ldae, ldm

SHAPE = (3, 4, 6, 5)
MODES, TISSUE = 4, 3


def latents(count: int, seed: int) -> torch.Tensor:
    """Latents with another mean and spread at every voxel."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(9)
    mean, spread = torch.randn(2, *SHAPE, generator=fixed)
    return 3 * mean + (0.2 + spread.abs()) * torch.randn(count, *SHAPE, generator=generator)


@pytest.fixture
def reference() -> Ldae:
    torch.manual_seed(0)
    config = {
        "unet": unet_config(ldm().denoiser, in_channels=SHAPE[0]),
        "diffusion": DiffusionParams().model_dump(),
        "prediction": "v",
        "statistics": SHAPE,
        "encoder": encoder_config(
            ldae().encoder.model_copy(update={"tissue_modes": TISSUE}), latent_shape=SHAPE
        ),
    }
    model = build_ldae(config).eval()
    train = latents(20, seed=1)
    standardise = model.diffusion.standardise
    standardise.set_statistics(train.mean(0), 1 / train.std(0), torch.ones(SHAPE[0], 1, 1, 1))
    z_0 = standardise(train)
    model.encoder.set_input_statistics(z_0.mean(0), torch.full(SHAPE, 0.7))
    model.encoder.modes.fit(model.encoder.deviation(z_0), torch.arange(20) // 4)
    tissue = model.encoder.tissue
    maps = tissue.fractions(model.encoder.deviation(z_0)).detach()
    tissue.centre.copy_(maps.mean(0))
    tissue.modes.fit(maps - maps.mean(0), torch.arange(20) // 4)
    model.encoder.estimate_output_statistics([z_0])
    return model


def turn(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(count, count, generator=generator).double())[0].float()


def turned(reference: Ldae) -> Ldae:
    """The same model in another space: modes and summary turned, latents standardised otherwise."""
    model = copy.deepcopy(reference)
    encoder, standardise = model.encoder, model.diffusion.standardise
    # z_0 twice as large, and counted from elsewhere: the deviation from the mean stays what it was.
    standardise.shift -= 1
    standardise.scale *= 2
    encoder.centre.copy_(2 * encoder.centre + standardise.scale)
    encoder.spread *= 2
    for modes in (encoder.modes, encoder.tissue.modes):
        mixed = turn(len(modes.modes), 1).roll(1, dims=0)
        modes.modes.copy_(torch.einsum("jk,kcxyz->jcxyz", mixed, modes.modes))
        modes.size *= 1.3
    encoder.tissue.centre += 0.1 * encoder.tissue.modes.modes[0]
    # The summary is standardised number by number, so it is turned before, and the mean with it.
    statistics = encoder.standardise
    unit, rotation = (statistics.running_var + statistics.eps).sqrt(), turn(len(unit_of(model)), 2)
    last = encoder.head[-1]
    last.weight.copy_(rotation @ (last.weight / unit[:, None]))
    last.bias.copy_(rotation @ ((last.bias - statistics.running_mean) / unit))
    statistics.running_mean.zero_()
    statistics.running_var.fill_(1 - statistics.eps)
    return model


def unit_of(model: Ldae) -> torch.Tensor:
    return model.encoder.standardise.running_var


@torch.no_grad()
def codes(model: Ldae, mean: torch.Tensor) -> np.ndarray:
    return model.embed(model.diffusion.standardise(mean)).numpy()


def paired(own: Ldae, other: Ldae, mean: torch.Tensor) -> PairedCodes:
    return PairedCodes(codes(own, mean), codes(other, mean))


@torch.no_grad()
def test_a_model_that_differs_by_a_rotation_gives_the_same_codes_once_aligned(reference):
    other = turned(reference)
    known, new = latents(30, seed=2), latents(7, seed=3)
    space = map_between(
        other,
        reference,
        alignment=paired(other, reference, known),
        origin=paired(other, reference, known[:5]),
    )
    expected, before = codes(reference, new), codes(other, new)
    assert np.abs(before - expected).max(axis=0).min() > 0.05, "no number was alike before"
    np.testing.assert_allclose(space(before), expected, atol=2e-3)
    assert space.explained == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_modes_of_another_mean_latent_are_mapped_exactly(reference):
    other = copy.deepcopy(reference)
    encoder = other.encoder
    moved = torch.tensor([[0.5, -1.0, 2.0, 0.3]])
    encoder.centre += encoder.spread * encoder.modes.compose(moved)[0]
    matrix, offset = map_amounts(RoughLatents(other), RoughLatents(reference))
    rough = torch.randn(6, MODES, generator=torch.Generator().manual_seed(4)) * encoder.modes.spread
    z_0 = reference.encoder.centre + reference.encoder.spread * encoder.modes.compose(rough)
    mean = reference.diffusion.standardise.inverse(z_0)
    own, expected = codes(other, mean)[:, :MODES], codes(reference, mean)[:, :MODES]
    np.testing.assert_allclose(own @ matrix + offset, expected, atol=1e-4)
    np.testing.assert_allclose(matrix, np.eye(MODES), atol=1e-6)
    np.testing.assert_allclose(offset, moved[0].numpy(), atol=1e-5)


def test_what_the_folds_modes_do_not_hold_is_left_out(reference):
    """Modes at right angles to the reference's say nothing of its amounts."""
    other = copy.deepcopy(reference)
    with torch.no_grad():
        axes = torch.cat([reference.encoder.modes.modes.flatten(1), torch.eye(2 * MODES, 360)])
        new = torch.linalg.qr(axes.T.double())[0].T[MODES : 2 * MODES]
        other.encoder.modes.modes.copy_(new.reshape(MODES, *SHAPE))
    matrix, _ = map_amounts(RoughLatents(other), RoughLatents(reference))
    np.testing.assert_allclose(matrix, 0, atol=1e-6)


@torch.no_grad()
def test_amounts_of_tissue_are_mapped_by_the_fractions_that_they_stand_for(reference):
    other = turned(reference)
    own, theirs = RoughTissue(other), RoughTissue(reference)
    matrix, offset = map_amounts(own, theirs)
    amounts = torch.randn(5, TISSUE, generator=torch.Generator().manual_seed(6)).double()
    expected = theirs.amounts(own.fields(amounts)).numpy()
    np.testing.assert_allclose(amounts.numpy() @ matrix + offset, expected, atol=1e-6)


def test_directions_that_no_alignment_scan_tells_of_are_not_turned():
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    own = np.zeros((40, 8))
    own[:, :3] = generator.normal(size=(40, 3))
    reference = np.zeros_like(own)
    reference[:, :3] = own[:, :3] @ rotation
    found, explained = turn_summaries(own, reference)
    np.testing.assert_allclose(found[:3, :3], rotation, atol=1e-4)
    np.testing.assert_allclose(found[3:, 3:], np.eye(5), atol=1e-4)
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-9)
    assert explained == pytest.approx(1)


def test_unrelated_summaries_are_told_by_what_is_explained():
    own, reference = np.random.default_rng(1).normal(size=(2, 400, 4))
    assert turn_summaries(own, reference)[1] < 0.2 - 1
