"""Latents that do not fit in memory give the very batches, and the training, of those that do."""

import json
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.runtime.devices import available_memory
from pipeline.stores.latents import Latents, open_latents
from pipeline.stores.streaming import StreamedLatents
from pipeline.training import batches, latent_diffusion
from pipeline.training.batches import batch_rows
from pipeline.training.standardisation import subject_folds
from schemas.diffusion import DenoiserParams, TrainLdmParams

CPU = torch.device("cpu")
IDS = ["sub-017", "sub-002", "sub-009", "sub-003", "sub-011"]


@pytest.fixture
def pair(latents_path):
    store = open_latents(latents_path)
    return store.load(IDS), StreamedLatents(store, IDS, chunks_in_memory=1)


def test_batches_equal_those_in_memory(pair):
    for index in (torch.tensor([0]), torch.tensor([4, 1, 1, 0])):
        means = [x.take_mean(index) for x in pair]
        assert torch.equal(*means)
        draws = [
            x.sample_posterior(index, generator=torch.Generator().manual_seed(3)) for x in pair
        ]
        assert torch.equal(*draws)
        assert not torch.equal(means[0], draws[0])
    assert pair[0].chunks == pair[1].chunks == (2, 0, 1, 0, 1)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("scale", ["voxel", "channel", "scalar", 0.5])
def test_standardisation_is_that_of_latents_in_memory(pair, scale, sampled):
    fits = [latent_diffusion.estimate_standardisation(x, scale, sampled=sampled) for x in pair]
    for one, other in zip(*fits, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    mean, logvar = (x.double().numpy() for x in (pair[0].mean, pair[0].logvar))
    noise = np.exp(logvar) * sampled
    shift, factor, _ = (x.numpy() for x in fits[0])
    if scale == "voxel":
        np.testing.assert_allclose(shift, mean.mean(axis=0), rtol=1e-5, atol=1e-6)
        z_0 = (mean - shift) * factor
        assert 0.3 < (z_0.var(axis=0, ddof=1) + (noise * factor**2).mean(axis=0)).mean() < 1.5
    elif scale == "channel":
        variance = mean.var(axis=(0, 2, 3, 4)) + noise.mean(axis=(0, 2, 3, 4))
        np.testing.assert_allclose(factor.flatten(), variance**-0.5, rtol=1e-5)
    elif scale == "scalar":
        np.testing.assert_allclose(factor.flatten(), (mean.var() + noise.mean()) ** -0.5, rtol=1e-5)


def test_every_voxel_of_many_scans_has_unit_variance():
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-1, 1, 125, dtype=torch.float64).reshape(1, 1, 5, 5, 5)
    mean = 3 + size * torch.randn(4000, 1, 5, 5, 5, generator=generator, dtype=torch.float64)
    many = Latents([str(i) for i in range(4000)], mean, torch.zeros_like(mean), (0,) * 4000)
    shift, factor, margin = latent_diffusion.estimate_standardisation(many, "voxel", sampled=False)
    assert abs(margin - 1).max() < 0.01
    z_0 = (mean - shift) * factor
    assert z_0.mean(0).abs().max() < 1e-3
    assert (z_0.var(0) - 1).abs().max() < 0.05
    twelve = {}
    for split, rows in {"train": slice(0, 12), "unseen": slice(12, 1000)}.items():
        ids = [f"sub-{i:04d}" for i in range(rows.stop - rows.start)]
        twelve[split] = Latents(ids, mean[rows], torch.zeros_like(mean[rows]), (0,) * len(ids))
    shift, factor, margin = latent_diffusion.estimate_standardisation(
        twelve["train"], "voxel", sampled=False
    )
    spread = {k: ((v.mean - shift) * factor).std() for k, v in twelve.items()}
    assert spread["train"] < 0.93
    assert spread["train"] * float(margin) == pytest.approx(1, abs=0.05)
    assert 0.95 < spread["unseen"] < 1.05
    few = Latents(["a", "b"], mean[:2], torch.zeros_like(mean[:2]), (0, 0))
    _, factor, _ = latent_diffusion.estimate_standardisation(few, "voxel", sampled=False)
    assert (factor * size).log().abs().max() < 3


def test_subjects_are_whole_in_their_fold_and_count_alike():
    ids = [f"sub-{i}_ses-{v}" for i in range(7) for v in range(1 + 3 * (i == 2))]
    folds = dict(zip(ids, subject_folds(ids).tolist(), strict=True))
    assert len({fold for scan, fold in folds.items() if scan.startswith("sub-2_")}) == 1
    assert set(folds.values()) == set(range(5))
    assert subject_folds(["ADNI_1", "ADNI_2", "ADNI_3"]).tolist() == [0, 1, 2]

    mean = torch.randn(7, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    once = Latents([f"sub-{i}_ses-0" for i in range(7)], mean, torch.zeros_like(mean), (0,) * 7)
    often = mean[[int(scan.split("_")[0][4:]) for scan in ids]]
    visits = replace(once, scan_ids=ids, mean=often, logvar=torch.zeros_like(often))
    for one, other in zip(
        latent_diffusion.estimate_standardisation(once, "voxel", sampled=False),
        latent_diffusion.estimate_standardisation(visits, "voxel", sampled=False),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_background_does_not_hide_how_far_out_unseen_scans_lie():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(12, 1, 6, 6, 6, generator=generator, dtype=torch.float64)
    brain = Latents([f"sub-{i}" for i in range(12)], mean, torch.zeros_like(mean), (0,) * 12)
    of_brain = latent_diffusion.estimate_standardisation(brain, "voxel", sampled=False)
    padded = nn.functional.pad(mean, (6, 6, 6, 6, 6, 6), value=0.5)
    whole = replace(brain, mean=padded, logvar=torch.zeros_like(padded))
    statistics = latent_diffusion.estimate_standardisation(whole, "voxel", sampled=False)
    assert all(torch.isfinite(x).all() for x in statistics)
    torch.testing.assert_close(statistics.margin, of_brain.margin, rtol=0.05, atol=0)
    inner = statistics.scale[:, 7:-7, 7:-7, 7:-7]
    torch.testing.assert_close(inner, of_brain.scale[:, 1:-1, 1:-1, 1:-1], rtol=0.05, atol=0)


CHUNKS = tuple(row // 4 for row in range(150))


def epoch(number, chunks=CHUNKS, seed=1):
    steps = range(number * 15, number * 15 + 15)
    rows = [
        batch_rows(s, num_rows=150, batch_size=10, seed=seed, chunks=chunks).tolist() for s in steps
    ]
    return list(chain.from_iterable(rows))


def test_an_epoch_holds_every_row_once_and_stays_in_its_window():
    for number in (0, 1):
        order = epoch(number)
        assert sorted(order) == list(range(150))
        left, begun = Counter(CHUNKS), set()
        for row in order:
            begun.add(CHUNKS[row])
            left[CHUNKS[row]] -= 1
            assert sum(left[chunk] > 0 for chunk in begun) <= batches.WINDOW_CHUNKS
    assert epoch(0) != epoch(1)
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(0, seed=2)


def test_few_chunks_are_shuffled_as_a_whole():
    assert epoch(0, chunks=tuple(row // 20 for row in range(150))) == epoch(0, chunks=None)


def test_every_chunk_is_read_once_an_epoch(latents_path, monkeypatch):
    monkeypatch.setattr(batches, "WINDOW_CHUNKS", 2)
    batches._epoch_order.cache_clear()
    store = open_latents(latents_path)
    latents, read = StreamedLatents(store, sorted(IDS), chunks_in_memory=2), []
    original = store.read_finite
    monkeypatch.setattr(store, "read_finite", lambda *a: read.append(a) or original(*a))
    for step in range(5):
        index = batch_rows(step, num_rows=5, batch_size=1, seed=0, chunks=latents.chunks)
        latents.take_mean(index)
    batches._epoch_order.cache_clear()
    assert len(read) == 3 * 2


def test_training_is_the_same_when_memory_is_short(tmp_path, latents_path, split, monkeypatch):
    params = TrainLdmParams(
        steps=3,
        batch_size=2,
        precision="fp32",
        denoiser=DenoiserParams(base_channels=32, multipliers=(1,), attention_levels=()),
    )
    losses = []
    for name, free in (("much", 10**12), ("little", 0)):
        monkeypatch.setattr(latent_diffusion, "available_memory", lambda free=free: free)
        out = tmp_path / name
        store = open_latents(latents_path)
        latent_diffusion.train_denoiser(store, split, params, out, device=CPU)
        metrics = json.loads((out / "metrics.json").read_text())
        losses.append((metrics["loss"], (out / "model.safetensors").read_bytes()))
    assert losses[0] == losses[1]


def test_available_memory_is_plausible():
    assert 1e8 < available_memory() < 1e14
