"""Training the autoencoder: every term, crops, checkpointing, accumulation, early stop, resume."""

import json

import pandas as pd
import pytest
import torch

from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import architecture, load_autoencoder
from pipeline.models.pretrained import load_lpips
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.lpips import Lpips
from pipeline.nets.resize_latent_channels import remove_latent_channels
from pipeline.training.autoencoder import train_autoencoder
from pipeline.training.autoencoder_module import (
    Adversary,
    AutoencoderModule,
    PerceptualLoss,
)
from pipeline.training.batches import step_generator
from schemas.autoencoder import AdversarialParams, TrainAeParams
from schemas.errors import ContractError
from tests.support.tiny_models import TINY_AE

CPU = torch.device("cpu")
SMALL = {"channels": (8,), "latent_channels": 2, "num_res_blocks": 1, "norm_groups": 4, "patch": 2}


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    """A state dict as the lpips package saves it, with weights made up."""
    torch.manual_seed(0)
    net = Lpips()
    tensors = {k: v.abs() if k.startswith("lin") else v for k, v in net.state_dict().items()}
    tensors |= {f"lins.{k[3:]}": v for k, v in tensors.items() if k.startswith("lin")}
    path = tmp_path_factory.mktemp("lpips") / "squeeze.pt"
    torch.save(tensors, path)
    return path


def everything(lpips_file, **more) -> TrainAeParams:
    return TINY_AE.model_copy(
        update={
            "steps": 6,
            "checkpoint_every": 2,
            "crop": (8, 12, 8),
            "checkpointing": True,
            "flip": True,
            "augment": 0.5,
            "perceptual": TINY_AE.perceptual.model_copy(update={"weights": lpips_file}),
            "adversarial": AdversarialParams(weight=0.1, warmup_steps=2, channels=4, layers=1),
            **more,
        }
    )


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_every_term_a_resumed_run_equals_an_undisturbed_one(
    tmp_path, monkeypatch, volumes, split, lpips_file, accumulate
):
    params = everything(lpips_file, accumulate=accumulate, batch_size=accumulate)
    train_autoencoder(volumes, split, params, tmp_path / "whole", device=CPU)
    compute = AutoencoderModule.compute_losses

    def dying(self, step):
        if step == 4:
            raise KilledError
        return compute(self, step)

    monkeypatch.setattr(AutoencoderModule, "compute_losses", dying)
    with pytest.raises(KilledError):
        train_autoencoder(volumes, split, params, tmp_path / "cut", device=CPU)
    monkeypatch.setattr(AutoencoderModule, "compute_losses", compute)
    train_autoencoder(volumes, split, params, tmp_path / "cut", device=CPU)
    whole, cut = (read_artefact(tmp_path / name, kind="ae") for name in ("whole", "cut"))
    assert whole.digest == cut.digest
    curves = [pd.read_csv(a.path / "log.csv").drop(columns="seconds") for a in (whole, cut)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    last = curves[0].iloc[-1]
    assert {"l1", "kl", "perceptual", "adversarial", "discriminator"} <= set(curves[0].columns)
    assert last["discriminator"] > 0
    assert "LPIPS + patch-adversarial" in (whole.path / "README.md").read_text()


def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 8, 12, 10)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = Autoencoder(**SMALL, checkpointing=checkpointing)
        net.decode(net.encode(x)[0]).square().mean().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_one_optimiser_steps_as_two_in_turn():
    """Autoencoder and discriminator, against the textbook loop with two optimisers."""
    torch.manual_seed(0)
    real = torch.rand(2, 1, 8, 8, 8)
    start = torch.rand(2, 1, 8, 8, 8)

    def players():
        torch.manual_seed(1)
        adversary = Adversary(AdversarialParams(weight=0.5, channels=4, layers=1))
        return torch.nn.Parameter(start.clone()), adversary

    made, ours = players()
    both = torch.optim.Adam(
        [{"params": [made], "lr": 1e-2}, {"params": list(ours.parameters()), "lr": 1e-3}]
    )
    for _ in range(3):
        both.zero_grad()
        (0.5 * ours.generator_loss(made) + ours.discriminator_loss(made, real)).backward()
        both.step()

    other, theirs = players()
    first = torch.optim.Adam([other], lr=1e-2)
    second = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    for _ in range(3):
        before = other.detach().clone()
        first.zero_grad()
        loss = theirs.loss(theirs.net(other)[-1], target_is_real=True, for_discriminator=False)
        (0.5 * loss).backward()
        first.step()
        second.zero_grad()
        judged = [
            theirs.loss(theirs.net(x)[-1], target_is_real=t, for_discriminator=True)
            for x, t in ((before, False), (real, True))
        ]
        (0.5 * sum(judged)).backward()
        second.step()
    torch.testing.assert_close(made, other)
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()))


def test_no_term_leaks_into_the_other_player():
    torch.manual_seed(0)
    adversary = Adversary(AdversarialParams(weight=1.0, channels=4, layers=1))
    made = torch.rand(1, 1, 8, 8, 8, requires_grad=True)
    adversary.generator_loss(made).backward()
    assert made.grad is not None
    assert all(p.grad is None for p in adversary.parameters())
    made.grad = None
    adversary.discriminator_loss(made, torch.rand(1, 1, 8, 8, 8)).backward()
    assert made.grad is None
    assert all(p.grad is not None for p in adversary.parameters())


def test_early_stop_ends_the_run(tmp_path, monkeypatch, volumes, split):
    monkeypatch.setattr(AutoencoderModule, "compute_validation", lambda self: {"l1": 1.0})
    params = TINY_AE.model_copy(update={"checkpoint_every": 2, "patience": 2})
    metrics = train_autoencoder(volumes, split, params, tmp_path / "ae", device=CPU)
    log = pd.read_csv(tmp_path / "ae" / "log.csv")
    assert log["step"].max() == 6
    assert metrics["step"] == 6


def test_crops_that_do_not_fit_and_missing_weights_are_refused(tmp_path, volumes, split):
    for crop in ((6, 12, 8), (8, 12, 24)):
        params = TINY_AE.model_copy(update={"crop": crop})
        with pytest.raises(ContractError, match=r"train_ae\.crop .* multiples of 4 within"):
            train_autoencoder(volumes, split, params, tmp_path / "ae", device=CPU)
    with pytest.raises(ContractError, match=r"nowhere\.pt: no such file"):
        load_lpips(tmp_path / "nowhere.pt", device=CPU)


def test_without_perceptual_weights_the_run_says_so(tmp_path, volumes, split, caplog):
    params = TINY_AE.model_copy(update={"steps": 1})
    with caplog.at_level("INFO"):
        train_autoencoder(volumes, split, params, tmp_path / "ae", device=CPU)
    assert "perceptual term: off" in caplog.text
    config = json.loads((tmp_path / "ae" / "config.json").read_text())
    assert config["perceptual_sha256"] is None


def test_lpips_is_zero_for_equals_grows_with_the_difference_and_is_loaded_strictly(
    lpips_file, tmp_path
):
    lpips = load_lpips(lpips_file, device=CPU)
    x = torch.rand(1, 1, 35, 37, 39)
    noise = torch.randn(x.shape)

    def distance(other):
        generator = step_generator(0, seed=0, device=CPU)
        return float(PerceptualLoss(lpips, 0.3)(other, x, generator))

    assert distance(x) == 0
    assert 0 < distance(x + 0.02 * noise) < distance(x + 0.2 * noise)
    tensors = torch.load(lpips_file, weights_only=True)
    del tensors["lin3.model.1.weight"]
    torch.save(tensors, tmp_path / "cut.pt")
    with pytest.raises(ContractError, match=r"missing lin3\.model\.1\.weight"):
        load_lpips(tmp_path / "cut.pt", device=CPU)


def test_curves_go_to_tensorboard_too(tmp_path, volumes, split):
    params = TINY_AE.model_copy(update={"steps": 2, "log_to": ("tensorboard",)})
    train_autoencoder(volumes, split, params, tmp_path / "ae", device=CPU)
    assert list((tmp_path / "ae" / "tensorboard").glob("events.out.*"))


def test_fine_tuning_starts_from_the_function_given(tmp_path, volumes, split, autoencoder_path):
    """With more latent channels too: the further ones have no effect before they are trained."""
    start = load_autoencoder(autoencoder_path, device=CPU)
    x = torch.from_numpy(volumes.read("volume", 0))[None, None].float() / 255
    for channels in (3, 5):
        params = TINY_AE.model_copy(
            update={"steps": 1, "lr": 1e-12, "latent_channels": channels, "ema_decay": 0.0}
        )
        out = tmp_path / str(channels)
        train_autoencoder(volumes, split, params, out, device=CPU, start=start)
        made = load_autoencoder(out, device=CPU)
        assert made.net.latent_channels == channels
        mean = made.net.encode(x)[0]
        torch.testing.assert_close(mean[:, :3], start.net.encode(x)[0], atol=1e-4, rtol=1e-4)
        assert channels == 3 or mean[:, 3:].std() > 1e-3
        expected = start.net.decode(start.net.encode(x)[0])
        torch.testing.assert_close(made.net.decode(mean), expected, atol=1e-4, rtol=1e-4)


def test_channels_that_carry_nothing_can_be_left_out(volumes, autoencoder_path):
    """The decoder hears nothing of channel 1: without it, all is as before."""
    start = load_autoencoder(autoencoder_path, device=CPU)
    start.net.net.post_quant_conv.conv.weight[:, 1] = 0
    start.net.net.post_quant_conv.conv.bias.zero_()  # else the border of the grid differs
    x = torch.from_numpy(volumes.read("volume", 0))[None, None].float() / 255
    fewer = Autoencoder(**architecture(start.config) | {"latent_channels": 2})
    fewer.load_state_dict(remove_latent_channels(start.net.state_dict(), 2))
    mean, kept = start.net.encode(x)[0], fewer.encode(x)[0]
    torch.testing.assert_close(kept, mean[:, [0, 2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fewer.decode(kept), start.net.decode(mean), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": (8, 8)},
        {"patch": 1},
        {"norm_groups": 4},  # shows in no tensor's shape
    ],
)
def test_weights_of_other_sizes_are_refused(tmp_path, volumes, split, autoencoder_path, change):
    start = load_autoencoder(autoencoder_path, device=CPU)
    params = TINY_AE.model_copy(update=change)
    with pytest.raises(ContractError, match="give the same but for latent_channels"):
        train_autoencoder(volumes, split, params, tmp_path / "ae", device=CPU, start=start)
    assert not (tmp_path / "ae").exists()
