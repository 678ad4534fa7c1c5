"""Brains drawn from y_sem: each sampled once, with the same x_T for every scan."""

import dataclasses

import pytest
import torch

from pipeline.evaluation.draws import DrawnBrains, drawn_means
from pipeline.evaluation.reconstruction import Scan, reconstruct_all
from pipeline.models.inference import LdaeInference

TWO, OTHERS = ["sub-018", "sub-019"], ["sub-019", "sub-018"]


def sampled(study, scan_ids, draw):
    y_sem = study.y_sem(scan_ids)
    noise = study.noise(draw).expand(len(y_sem), -1, -1, -1, -1)
    return study.models.decode(study.models.sample(y_sem, noise))


@pytest.mark.slow
def test_means_are_of_draws_that_all_scans_share(study):
    means = drawn_means(DrawnBrains(study), TWO, OTHERS)
    assert set(means) == {"ldae_y_sem_mean", "ldae_other_y_sem_mean", "modes_alone"}
    expected = torch.stack([sampled(study, OTHERS, draw) for draw in (0, 1)]).mean(0)
    torch.testing.assert_close(means["ldae_other_y_sem_mean"][:, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(means["ldae_y_sem_mean"], expected.flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(study.drawn[TWO[0]], means["ldae_y_sem_mean"][0])


def test_no_means_without_draws(study):
    none = dataclasses.replace(study, params=study.params.model_copy(update={"draws": 0}))
    assert drawn_means(DrawnBrains(none), TWO, OTHERS) == {}


def test_draws_of_noise_come_in_pairs_whose_mean_is_zero(study):
    first, second, third, fourth = (study.noise(draw) for draw in range(4))
    assert torch.equal(first + second, torch.zeros_like(first))
    assert torch.equal(third + fourth, torch.zeros_like(first))
    assert not torch.equal(first.abs(), third.abs())


@pytest.mark.slow
def test_single_draws_of_own_and_other_y_sem_share_the_noise_of_the_scan(study):
    scans = [Scan(TWO[0], "a", (TWO[1],), 1), Scan(TWO[1], "b", (TWO[0],), 0)]
    made, _ = reconstruct_all(study, scans, DrawnBrains(study))
    for row, draw in enumerate((1, 0)):
        own, other = (sampled(study, [scans[k].scan_id], draw)[0] for k in (row, 1 - row))
        torch.testing.assert_close(made["ldae_y_sem_only"][row], own, atol=1e-4, rtol=0)
        torch.testing.assert_close(made["ldae_other_y_sem"][row, 0], other, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_each_brain_is_sampled_once(study, monkeypatch):
    counts, sample = [], LdaeInference.sample

    def counting(models, y_sem, x_T, **ways):
        counts.append(len(x_T))
        return sample(models, y_sem, x_T, **ways)

    monkeypatch.setattr(LdaeInference, "sample", counting)
    fresh = dataclasses.replace(study, drawn={})
    brains = DrawnBrains(fresh)
    brains.volumes(TWO, [1, 0])
    brains.volumes(OTHERS, [1, 0])
    brains.means(TWO)
    brains.means(OTHERS)
    assert sum(counts) == len(TWO) * fresh.params.draws
    brains.forget(TWO[:1])
    assert {scan for scan, _ in brains.z_0} == set(TWO[1:])
