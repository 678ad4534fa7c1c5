"""Foreign autoencoders: old key layout against a direct reference, refusals in one line."""

import json
import pickle
import re

import pytest
import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from safetensors.torch import save_file
from typer.testing import CliRunner

from pipeline.models.conversion.monai_import import import_autoencoder
from pipeline.models.frozen import load_autoencoder
from schemas.errors import ContractError
from stages.cli import app

CPU = torch.device("cpu")
GRID = {"zooms": 20.0, "shape": (8, 12, 10)}
NARROW = {"channels": (8, 16), "latent_channels": 3, "norm_num_groups": 8}
WITHOUT = {"with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False}
NETWORKS = {
    "as published, without attention": {
        "num_res_blocks": (2, 1), "attention_levels": (False, False), **WITHOUT,
    },
    "non-local attention": {"num_res_blocks": (1, 1), "attention_levels": (False, False)},
    "attention everywhere": {"num_res_blocks": (1, 2), "attention_levels": (True, True)},
    "attention on a level alone": {
        "num_res_blocks": (1, 1), "attention_levels": (False, True), **WITHOUT,
    },
    "one non-local block": {
        "num_res_blocks": (1, 1),
        "attention_levels": (False, False),
        "with_encoder_nonlocal_attn": False,
    },
}  # fmt: skip


def network(name="as published, without attention", *, trained=True, **more) -> AutoencoderKL:
    torch.manual_seed(3)
    net = AutoencoderKL(spatial_dims=3, **NARROW, **NETWORKS[name], **more).eval()
    if trained:
        for p in net.parameters():
            torch.nn.init.normal_(p, mean=0.1 if p.ndim == 1 else 0, std=0.15)
    return net


def old_names(tensors):
    """The names that monai-generative 0.2 gave the same tensors."""
    old = {}
    for key, value in tensors.items():
        name = key.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.to_", ".to_")
        old[name.replace(".postconv.", ".conv.")] = value.clone()
    return old


def reconstruct(net, x):
    with torch.no_grad():
        return net.decode(net.encode(x)[0])


def volume():
    return torch.rand(1, 1, 8, 12, 10, generator=torch.Generator().manual_seed(0))


def imported_net(path, out, **options):
    import_autoencoder(path, out, device=CPU, **GRID, **options)
    return load_autoencoder(out, device=CPU).net


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_an_old_checkpoint_gives_the_output_of_its_own_network(tmp_path, name, suffix):
    net = network(name)
    path = tmp_path / f"autoencoder.{suffix}"
    tensors = old_names(net.state_dict())
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    ours = imported_net(path, tmp_path / "ae")
    with torch.no_grad():
        mean, logvar = ours.encode(volume())
        expected_mean, expected_sigma = net.encode(volume())
    torch.testing.assert_close(mean, expected_mean, atol=1e-4, rtol=0)
    torch.testing.assert_close((logvar / 2).exp(), expected_sigma, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.decode(mean), reconstruct(net, volume()), atol=1e-4, rtol=0)


def test_a_projection_that_was_never_trained_was_never_used(tmp_path):
    """monai-generative kept proj_attn in its checkpoints and out of its forward pass."""
    net = network("non-local attention", include_fc=False)
    tensors = old_names(net.state_dict())
    for key in [k for k in tensors if k.endswith("to_q.weight")]:
        for part, value in torch.nn.Linear(16, 16).state_dict().items():
            tensors[key.replace("to_q.weight", f"proj_attn.{part}")] = value
    torch.save(tensors, tmp_path / "old.pth")
    ours = imported_net(tmp_path / "old.pth", tmp_path / "ae")
    made = ours.decode(ours.encode(volume())[0])
    torch.testing.assert_close(made, reconstruct(net, volume()), atol=1e-4, rtol=0)
    applied = imported_net(tmp_path / "old.pth", tmp_path / "applied", projection="apply")
    assert float((applied.decode(applied.encode(volume())[0]) - made).abs().max()) > 1e-3


def test_the_oldest_layout_has_convolutions_for_projections(tmp_path):
    net = network("non-local attention")
    tensors = {}
    for key, value in old_names(net.state_dict()).items():
        name = re.sub(r"\.to_([qkv])\.", r".\1.conv.", key).replace("proj_attn", "proj_out.conv")
        attention = name != key
        tensors[name] = value[..., None, None, None] if attention and value.ndim == 2 else value
    torch.save(tensors, tmp_path / "oldest.pth")
    ours = imported_net(tmp_path / "oldest.pth", tmp_path / "ae")
    made = ours.decode(ours.encode(volume())[0])
    torch.testing.assert_close(made, reconstruct(net, volume()), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "key",
    [
        "encoder.blocks.0.conv.weight",
        "encoder.blocks.1.conv1.conv.weight",
        "encoder.blocks.4.norm2.bias",
        "decoder.blocks.2.conv.conv.weight",
        "quant_conv_log_sigma.conv.bias",
        "post_quant_conv.conv.weight",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_a_checkpoint_with_a_wrong_tensor_is_refused_by_name(tmp_path, key, damage):
    tensors = old_names(network().state_dict())
    value = tensors.pop(key)
    if damage == "misshapen":
        tensors[key] = torch.cat([value, value])
    torch.save(tensors, tmp_path / "bad.pth")
    with pytest.raises(ContractError) as caught:
        import_autoencoder(tmp_path / "bad.pth", tmp_path / "ae", device=CPU, **GRID)
    message = str(caught.value)
    present = key.replace("2.conv.conv", "2.postconv.conv")
    assert present in message
    assert "\n" not in message
    assert not (tmp_path / "ae").exists()


def test_a_tensor_too_many_is_refused_by_name(tmp_path):
    torch.save(
        old_names(network().state_dict()) | {"extra.weight": torch.ones(2)}, tmp_path / "x.pt"
    )
    with pytest.raises(ContractError, match=r"unexpected net\.extra\.weight"):
        import_autoencoder(tmp_path / "x.pt", tmp_path / "ae", device=CPU, **GRID)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_pickle_with_code_is_refused_and_its_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(network().state_dict() | {"bomb": Bomb()}, "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"bomb": Bomb()}))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "zip.pth").read_bytes()[:900])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("zip.pth", "plain.pth", "cut.pth", "text.pth", "absent.pth"):
        with pytest.raises(ContractError, match=name) as caught:
            import_autoencoder(tmp_path / name, tmp_path / "ae", device=CPU, **GRID)
        assert "\n" not in str(caught.value)
        assert ("holds code" in str(caught.value)) or name in {"cut.pth", "text.pth", "absent.pth"}
    assert not (tmp_path / "exploded").exists()


def test_a_training_checkpoint_is_opened_and_two_networks_in_it_need_a_prefix(tmp_path):
    net = network()
    nested = {f"autoencoder.{k}": v for k, v in old_names(net.state_dict()).items()}
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": nested, "discriminator": {"w": torch.ones(3)}}, path)
    made = imported_net(path, tmp_path / "a")
    torch.testing.assert_close(made.net.state_dict(), net.state_dict())
    ema = {f"ema.{k}": v + 1 for k, v in net.state_dict().items()}
    torch.save({"state_dict": nested | ema}, path)
    with pytest.raises(ContractError, match=r"--prefix: 'state_dict\.autoencoder\.', 'state_dict"):
        import_autoencoder(path, tmp_path / "b", device=CPU, **GRID)
    chosen = imported_net(path, tmp_path / "b", prefix="state_dict.ema.")
    torch.testing.assert_close(
        chosen.net.post_quant_conv.conv.bias, ema["ema.post_quant_conv.conv.bias"]
    )


def test_a_config_tells_what_shapes_do_not(tmp_path):
    """As in the zoo's brain bundle: num_channels, norm groups, references beside values."""
    torch.manual_seed(0)
    arguments = {
        "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "latent_channels": 3,
        "num_channels": [8, 16], "num_res_blocks": 1, "norm_num_groups": 4, "norm_eps": 1e-3,
        "attention_levels": [False, False], **WITHOUT,
    }  # fmt: skip
    net = AutoencoderKL(**{k.replace("num_ch", "ch"): v for k, v in arguments.items()}).eval()
    bundle = tmp_path / "bundle"
    for folder in ("models", "configs"):
        (bundle / folder).mkdir(parents=True)
    torch.save(old_names(net.state_dict()), bundle / "models" / "autoencoder.pt")
    torch.save({"unet": torch.ones(1)}, bundle / "models" / "model.pt")
    definition = {"_target_": "AutoencoderKL"} | arguments
    (bundle / "configs" / "inference.json").write_text(
        json.dumps({"autoencoder_def": definition, "network_def": "@autoencoder_def"})
    )
    ours = imported_net(bundle, tmp_path / "ae")
    made = ours.decode(ours.encode(volume())[0])
    torch.testing.assert_close(made, reconstruct(net, volume()), atol=1e-4, rtol=0)


def test_our_own_folder_comes_back_the_same(tmp_path, autoencoder_path):
    import_autoencoder(autoencoder_path, tmp_path / "ae", device=CPU)
    ours = load_autoencoder(tmp_path / "ae", device=CPU).net
    expected = load_autoencoder(autoencoder_path, device=CPU).net
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), atol=0, rtol=0)
    assert ours.patch == 2


def test_the_command_reports_the_template_and_an_untrained_network_is_called_poor(tmp_path):
    torch.save(old_names(network(trained=False).state_dict()), tmp_path / "a.pth")
    result = CliRunner().invoke(
        app,
        ["import-ae", str(tmp_path / "a.pth"), "--out", str(tmp_path / "ae"), "--device", "cpu",
         "--zooms", "20", "--shape", "8", "12", "10"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "norm groups 8, which no shape tells" in result.output
    assert re.search(r"SSIM [-\d.]+ on the template is poor", result.output)
    assert re.search(r"MNI template comes back with SSIM [-\d.]+, MSE [\d.]+", result.output)
    metrics = json.loads((tmp_path / "ae" / "metrics.json").read_text())
    assert metrics["ssim_brain"] < 0.8
