"""What reconstruction, variation, generation and manipulation keep and what they change."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.applications.generate import fit_prior, generate, prior_of
from pipeline.applications.manipulate import manipulate, move
from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.residual import ScanResidual, add_residual
from pipeline.applications.vary import vary
from pipeline.encoding.embed import embed_latents
from pipeline.models.inference import LdaeInference
from pipeline.stores.latents import open_latents
from schemas.errors import ContractError
from schemas.params import EmbedParams
from tests.support.tiny_models import CPU, DIM
from tests.support.volumes import SCAN, SHAPE, write_manifest_of


def fine(models):
    return dataclasses.replace(models, num_inference_steps=60)


def round_trip_error(models, source):
    codes = models.infer_codes(source.z_0)
    return float((models.sample(codes.y_sem, codes.x_T) - source.z_0).norm() / source.z_0.norm())


@pytest.mark.slow
def test_reconstruction_is_the_round_trip_of_a_scan(models, source):
    outcome = reconstruct(models, source.z_0)
    assert outcome.volumes.shape == (1, *SHAPE)
    assert 0 <= outcome.volumes.min() <= outcome.volumes.max() <= 1
    assert set(outcome.record["inversion"]) == {"mean", "std", "kurtosis"}


@pytest.mark.slow
def test_the_round_trip_nears_the_latent_with_more_steps(models, source):
    assert round_trip_error(models, source) > 2 * round_trip_error(fine(models), source)
    assert round_trip_error(fine(models), source) < 0.2


@pytest.mark.slow
def test_variations_share_y_sem_and_nothing_else(models, source):
    three = vary(models, source.z_0, name=SCAN, count=3, seed=5)
    assert three.labels == ["vary-1", "vary-2", "vary-3"]
    assert not torch.allclose(three.volumes[0], three.volumes[1], atol=1e-3)
    # The batch of two is cut elsewhere than that of three, so only nearly equal.
    two = vary(models, source.z_0, name=SCAN, count=2, seed=5)
    torch.testing.assert_close(two.volumes, three.volumes[:2], atol=1e-4, rtol=0)
    other_seed = vary(models, source.z_0, name=SCAN, count=1, seed=6)
    assert not torch.allclose(other_seed.volumes[0], three.volumes[0], atol=1e-3)


@pytest.mark.slow
def test_generation_depends_on_seed_and_number_alone(models):
    one, four = (generate(models, count=count, seed=1, prior=None) for count in (1, 4))
    torch.testing.assert_close(one.volumes, four.volumes[:1], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_record_of_generation_tells_where_y_sem_came_from(models):
    alone = generate(models, count=1, seed=1, prior=None)
    assert "unconditional" in alone.record["method"]
    y_sem = np.random.default_rng(0).normal(size=(9, DIM)) * np.arange(1, DIM + 1)
    drawn = generate(models, count=2, seed=1, prior=fit_prior(y_sem))
    assert "fitted to 9 training scans" in drawn.record["method"]


@pytest.fixture
def mixing():
    return np.random.default_rng(0).normal(size=(3, 3))


@pytest.fixture
def y_sem(mixing):
    """Return codes of 4000 scans with mean (5, -2, 0) and covariance `mixing.T @ mixing`."""
    return np.random.default_rng(1).normal(size=(4000, 3)) @ mixing + [5, -2, 0]


def test_prior_has_the_moments_of_its_scans(mixing, y_sem):
    prior = fit_prior(y_sem)
    drawn = torch.cat([prior.sample("a", k) for k in range(4000)]).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), [5, -2, 0], atol=0.2)
    np.testing.assert_allclose(np.cov(drawn.T), mixing.T @ mixing, atol=0.4)


def test_prior_bears_an_element_that_never_varies(y_sem):
    constant = fit_prior(np.column_stack([y_sem, np.ones(4000)]))
    assert np.isfinite(constant.factor).all()


@pytest.mark.slow
def test_prior_is_fitted_to_training_scans_of_this_model(
    tmp_path, models, latents_path, split, volumes
):
    semantics = tmp_path / "semantics.zarr"
    embed_latents(open_latents(latents_path), models.ldae, semantics, EmbedParams(), device=CPU)
    manifest = write_manifest_of(tmp_path, split)
    assert prior_of(semantics, manifest, models).num_scans == 12
    other = SimpleNamespace(ldae=SimpleNamespace(digest="other"))
    with pytest.raises(ContractError, match="another LDAE"):
        prior_of(semantics, manifest, other)


@pytest.mark.slow
def test_scale_zero_is_the_reconstruction(models, source, direction):
    outcome = manipulate(models, source.z_0, direction, (-2.0, 0.0, 2.0))
    torch.testing.assert_close(
        outcome.volumes[1:2], reconstruct(models, source.z_0).volumes, atol=1e-4, rtol=0
    )
    assert outcome.labels == ["scale-2.00", "scale+0.00", "scale+2.00"]
    assert outcome.details[2]["published_scale"] == pytest.approx(2 * 1.7 / np.sqrt(DIM))


@pytest.mark.slow
@pytest.mark.parametrize(("compared_first", "batches"), [(False, [3]), (True, [1, 2])])
def test_scale_zero_is_sampled_once_and_with_the_others(
    models, source, direction, monkeypatch, compared_first, batches
):
    outcome = manipulate(models, source.z_0, direction, (-2.0, 0.0, 2.0))
    sampled, sample = [], LdaeInference.sample
    monkeypatch.setattr(
        LdaeInference, "sample", lambda self, y, x: sampled.append(len(x)) or sample(self, y, x)
    )
    steps = [lambda: outcome.volumes, outcome.comparison]
    for step in steps[::-1] if compared_first else steps:
        step()
    assert sampled == batches
    np.testing.assert_array_equal(outcome.comparison().volume, outcome.volumes[1])


def test_one_scale_is_one_standard_deviation_along_the_direction(direction):
    y_sem = torch.randn(1, DIM, generator=torch.Generator().manual_seed(0))
    moved = move(y_sem, direction, (0.0, 1.0, -2.5)).numpy()
    np.testing.assert_array_equal(moved[0], y_sem[0])
    positions = direction.position(moved)
    np.testing.assert_allclose(positions - positions[0], [0, 1, -2.5], atol=1e-5)
    # As published: n' = n + s sqrt(d) w.
    n, after = ((y - direction.mean) / direction.std for y in (moved[0], moved[1]))
    expected = n + direction.published(1.0) * np.sqrt(DIM) * direction.weight
    np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.slow
def test_pictures_of_a_manipulation_compare_with_scale_0(opener, models, direction, source):
    own = np.full(SHAPE, 0.03, np.float32)
    outcome = manipulate(models, source.z_0, direction, (-1.0, 0.0))
    for compared in (outcome, add_residual(outcome, ScanResidual(own))):
        title, volume = compared.comparison()
        assert title == "scale 0"
        np.testing.assert_allclose(volume, compared.volumes[1].numpy(), atol=1e-4, rtol=0)
