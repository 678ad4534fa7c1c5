"""Models that remember: the same answers as plain ones, and nothing computed twice."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

import pipeline.study.remembering as module
from pipeline.models.inference import LdaeInference
from pipeline.study.remembering import RememberingInference, without_memory


@pytest.fixture
def z_0(models):
    generator = torch.Generator().manual_seed(5)
    return torch.randn((3, *models.latent_shape), generator=generator)


@pytest.fixture
def rows(monkeypatch):
    """Count the rows that go through the networks of plain models."""
    counts = Counter()

    def counted(name, plain):
        def call(self, *arguments, **options):
            counts[name] += len(next(a for a in reversed(arguments) if a is not None))
            return plain(self, *arguments, **options)

        return call

    for name in ("embed", "invert", "sample", "decode"):
        monkeypatch.setattr(LdaeInference, name, counted(name, getattr(LdaeInference, name)))
    return counts


def reconstructed(models, z_0):
    codes = models.infer_codes(z_0)
    return codes.y_sem, codes.x_T, models.decode(models.sample(codes.y_sem, codes.x_T))


@pytest.mark.slow
def test_answers_are_those_of_plain_models_whatever_is_known_already(models, z_0):
    remembering = RememberingInference.of(models)
    first = reconstructed(remembering, z_0[1:])
    mixed = reconstructed(remembering, z_0)
    for known, again in zip(first, mixed, strict=True):
        assert torch.equal(again[1:], known)
    for plain, own in zip(reconstructed(models, z_0), mixed, strict=True):
        torch.testing.assert_close(own, plain, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_what_was_computed_of_a_scan_is_not_computed_again(models, z_0, rows):
    remembering = RememberingInference.of(models)
    for part in (z_0[:2], z_0, z_0.flip(0)):
        reconstructed(remembering, part)
        remembering.decode(part)
    assert rows == {"embed": 3, "invert": 3, "sample": 3, "decode": 6}


@pytest.mark.slow
def test_other_codes_and_other_steps_are_not_taken_for_known(models, z_0, rows):
    remembering = RememberingInference.of(models)
    codes = remembering.infer_codes(z_0[:1])
    remembering.sample(codes.y_sem, codes.x_T)
    remembering.sample(codes.y_sem, -codes.x_T)
    remembering.sample(codes.y_sem, codes.x_T, modes_alone=True)
    replace(remembering, num_inference_steps=3).infer_codes(z_0[:1])
    assert rows == {"embed": 1, "invert": 2, "sample": 3}


@pytest.mark.slow
def test_volumes_in_memory_are_bounded_and_only_those_of_scans(models, z_0, rows, monkeypatch):
    remembering = RememberingInference.of(models)
    volume = remembering.decode(z_0)[0]
    assert not remembering.memory.volumes
    monkeypatch.setattr(module, "MOST_BYTES", 2 * volume.nbytes)
    remembering.embed(z_0)
    remembering.decode(z_0)
    assert len(remembering.memory.volumes) == 2


def test_speed_is_measured_without_memory(models):
    plain = without_memory(RememberingInference.of(models))
    assert type(plain) is LdaeInference
    assert plain.autoencoder is models.autoencoder
