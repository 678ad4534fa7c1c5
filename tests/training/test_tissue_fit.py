"""What reads tissue from latents: fitted on volumes, or the package's own."""

import pytest
import torch

from pipeline.models.bundled_ldae import BUNDLED_LDAE
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.nets.semantic import TISSUE_WIDTH
from pipeline.nets.tissue import TissueNet, tissue_fractions
from pipeline.stores.latents import open_latents
from pipeline.training.batches import batch_rows
from pipeline.training.latent_diffusion import train_ldae
from pipeline.training.tissue_fit import (
    FitCheckpoint,
    TissueSource,
    find_tissue_source,
    fit_tissue_net,
)
from schemas.errors import ParamsError
from tests.support.tiny_models import CPU, LDAE

TISSUE = 3


def params(**changes):
    encoder = LDAE.encoder.model_copy(update={"tissue_modes": TISSUE, "tissue_steps": 40} | changes)
    return LDAE.model_copy(update={"encoder": encoder, "steps": 2, "checkpoint_every": 2})


def read(net: TissueNet, mean: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(mean.float())


@pytest.mark.slow
def test_fitted_on_volumes_it_reads_more_than_the_mean(latents_path, volumes, split):
    train = open_latents(latents_path).load(split["train"])
    torch.manual_seed(0)
    net = TissueNet(in_channels=train.mean.shape[1], width=8)
    fit_tissue_net(net, train, volumes, steps=300, seed=0)
    side = volumes.attributes.grid.shape[0] // train.mean.shape[2]
    truth = tissue_fractions(volumes.load_unit_interval(split["train"]), side)
    error = (read(net, train.mean) - truth).square().mean()
    assert error < 0.5 * (truth - truth.mean(dim=(0, 2, 3, 4), keepdim=True)).square().mean()
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_an_interrupted_fit_goes_on_where_it_was(
    tmp_path, latents_path, volumes, split, monkeypatch
):
    train = open_latents(latents_path).load(split["train"])
    monkeypatch.setattr("pipeline.training.tissue_fit.CHECKPOINT_EVERY", 2)

    def fit(checkpoint: FitCheckpoint | None) -> TissueNet:
        torch.manual_seed(0)
        net = TissueNet(in_channels=train.mean.shape[1], width=8)
        fit_tissue_net(net, train, volumes, steps=6, seed=0, checkpoint=checkpoint)
        return net

    whole, kept = fit(None), FitCheckpoint(tmp_path / "x.tissue.ckpt", "a plan")
    steps = []

    def rows(step: int, **sizes: int) -> torch.Tensor:
        if step == 5 and 5 not in steps:
            steps.append(step)
            raise KeyboardInterrupt
        steps.append(step)
        return batch_rows(step, **sizes)

    monkeypatch.setattr("pipeline.training.tissue_fit.batch_rows", rows)
    with pytest.raises(KeyboardInterrupt):
        fit(kept)
    for net in (fit(kept), fit(kept)):  # the second reads what the first ended with
        for name, tensor in whole.state_dict().items():
            assert torch.equal(net.state_dict()[name], tensor), name
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5]
    fit(FitCheckpoint(kept.path, "another plan"))
    assert steps[8:] == list(range(6))


def test_without_a_bundled_net_for_the_latents_volumes_are_asked_for(
    tmp_path, latents_path, split, trained
):
    frozen = load_diffusion(trained / "ldm", device=CPU)
    with pytest.raises(ParamsError, match=r"give --volumes.*tissue_modes=0"):
        train_ldae(open_latents(latents_path), split, frozen, params(), tmp_path / "x", device=CPU)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_trained_ldae_holds_net_and_modes_and_is_the_same_again(
    tmp_path, latents_path, volumes, split, trained
):
    store, codes = open_latents(latents_path), []
    for name in ("first", "again"):
        frozen = load_diffusion(trained / "ldm", device=CPU)
        out = tmp_path / name
        train_ldae(store, split, frozen, params(), out, device=CPU, volumes=volumes)
        ldae = load_ldae(out, device=CPU)
        z_0 = ldae.net.diffusion.standardise(store.load(split["test"]).mean.float())
        codes.append(ldae.net.embed(z_0).detach())
    assert torch.equal(*codes)
    encoder, mean = ldae.net.encoder, store.load(split["test"]).mean.float()
    assert ldae.config["encoder"]["tissue_modes"] == TISSUE
    assert ldae.config["inputs"]["tissue"] == volumes.digest
    maps = read(encoder.tissue.net, mean) - encoder.tissue.centre
    part = encoder.parts()["tissue"]
    torch.testing.assert_close(
        codes[0][:, part], encoder.tissue.modes.project(maps), atol=1e-3, rtol=0
    )
    # y_sem of training scans is centred, and training left the net as it was fitted.
    train = ldae.net.diffusion.standardise(store.load(split["train"]).mean.float())
    assert ldae.net.embed(train)[:, part].mean(0).abs().max() < 0.01


def test_the_bundled_net_is_taken_where_its_autoencoder_made_the_latents(
    latents_path, volumes, monkeypatch
):
    """`volumes` are given too, as a study's pipeline does, and not needed."""
    store, bundled = open_latents(latents_path), load_ldae(BUNDLED_LDAE, device=CPU)
    encoder = params().encoder
    other = find_tissue_source(store, encoder, volumes)
    assert (other.bundled, other.digest) == (None, volumes.digest)
    anew = encoder.model_copy(update={"tissue_net": "fit"})
    assert find_tissue_source(store, anew, volumes).volumes is volumes
    made_by_it = store.attributes.digests | {"autoencoder": bundled.config["autoencoder_digest"]}
    attributes = store.attributes.model_copy(update={"digests": made_by_it})
    monkeypatch.setattr(store, "attributes", attributes)
    found = find_tissue_source(store, encoder, volumes)
    assert (found.volumes, found.digest) == (None, bundled.digest)
    net = TissueNet(in_channels=8, width=TISSUE_WIDTH)
    found.prepare(net, None, steps=0, seed=0)
    same = bundled.net.encoder.tissue.net.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in net.state_dict().items())
    assert find_tissue_source(store, LDAE.encoder, None) == TissueSource()
