"""MONAI's MAISI autoencoder: imported, against MONAI's own class; whole and in boxes."""

import json

import numpy as np
import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from typer.testing import CliRunner

from pipeline.encoding.device_settings import scan_bytes
from pipeline.encoding.run import encode_volumes
from pipeline.models.conversion.monai_export import export_monai_bundle
from pipeline.models.conversion.monai_import import import_autoencoder
from pipeline.models.frozen import intensity_rule, load_autoencoder
from pipeline.stores.latents import open_latents
from schemas.errors import ContractError
from schemas.params import EncodeParams
from stages.cli import app
from tests.support.volumes import make_volumes, subjects

CPU = torch.device("cpu")
ARGUMENTS = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "num_channels": (8, 16, 24),
    "latent_channels": 4, "num_res_blocks": (2, 2, 2), "norm_num_groups": 8, "norm_eps": 1e-6,
    "attention_levels": (False, False, False), "num_splits": 1, "save_mem": False,
}  # fmt: skip
GRID = {"zooms": 6.0, "shape": (32, 40, 32)}


def network(**changes) -> AutoencoderKlMaisi:
    torch.manual_seed(4)
    net = AutoencoderKlMaisi(**ARGUMENTS | changes).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, mean=0.1 if p.ndim == 1 else 0, std=0.12)
    return net


def volume():
    return torch.rand(1, 1, 32, 40, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """One file, as NV-Generate publishes."""
    path = tmp_path_factory.mktemp("maisi") / "autoencoder.pt"
    torch.save(network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def imported(weights):
    out = weights.with_name("ae")
    import_autoencoder(weights, out, device=CPU, norm_groups=8, **GRID)
    return out


def test_a_maisi_autoencoder_encodes_and_decodes_as_monai_itself_does(imported):
    ours, theirs = load_autoencoder(imported, device=CPU).net, network()
    with torch.no_grad():
        mean, logvar = ours.encode(volume())
        expected, sigma = theirs.encode(volume())
        torch.testing.assert_close(mean, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close((logvar / 2).exp(), sigma, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.decode(mean), theirs.decode(mean), atol=1e-5, rtol=0)
    assert ours.factor == 4
    assert mean.shape == (1, 4, 8, 10, 8)


@pytest.mark.slow
def test_non_local_attention_of_maisi_is_read_off_its_tensors(tmp_path):
    net = network(with_encoder_nonlocal_attn=True, with_decoder_nonlocal_attn=True, include_fc=True)
    torch.save({"epoch": 3, "unet_state_dict": net.state_dict()}, tmp_path / "a.pt")
    import_autoencoder(tmp_path / "a.pt", tmp_path / "ae", device=CPU, norm_groups=8, **GRID)
    ours = load_autoencoder(tmp_path / "ae", device=CPU).net
    with torch.no_grad():
        mean = ours.encode(volume())[0]
        torch.testing.assert_close(mean, net.encode(volume())[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.decode(mean), net.decode(mean), atol=1e-5, rtol=0)


def test_a_maisi_tensor_that_is_missing_is_named_and_nothing_is_written(tmp_path):
    tensors = network().state_dict()
    del tensors["encoder.blocks.1.conv1.conv.conv.bias"]
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(ContractError, match=r"missing net\.encoder\.blocks\.1\.conv1\.conv\.conv"):
        import_autoencoder(tmp_path / "a.pt", tmp_path / "ae", device=CPU, norm_groups=8, **GRID)
    assert not (tmp_path / "ae").exists()


def test_maisi_keeps_its_intensity_rule(imported):
    rule = intensity_rule(load_autoencoder(imported, device=CPU).config)
    assert rule == {"intensity": "percentiles", "intensity_percentiles": (0.0, 99.5)}


def test_volumes_scaled_otherwise_are_warned_of(tmp_path, imported, caplog):
    from pipeline.encoding.run import check_intensity
    from pipeline.stores.open_store import OpenStore

    store = make_volumes(tmp_path / "v.zarr", subjects(2))
    store.attributes.params["preprocess"] = {"intensity_percentiles": [0.5, 99.5]}
    assert isinstance(store, OpenStore)
    check_intensity(store, load_autoencoder(imported, device=CPU))
    assert "intensity_percentiles (0.5, 99.5)" in caplog.text
    assert "(0.0, 99.5)" in caplog.text


@pytest.mark.slow
def test_boxes_are_near_the_whole_and_the_import_states_the_error(tmp_path, weights, imported):
    result = CliRunner().invoke(
        app,
        ["import-ae", str(weights), "--out", str(tmp_path / "ae"), "--device", "cpu", "--zooms",
         "6", "--shape", "32", "40", "32", "--norm-groups", "8", "--boxes", "32", "24", "32"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "in boxes of 32×24×32 voxels: latents of the template differ" in result.output
    assert "encodes a scan in boxes in about" in result.output
    config = json.loads((tmp_path / "ae" / "config.json").read_text())
    stated = config["metrics"]["boxes_latent_error"]
    assert 0 < stated < 0.25
    whole, boxed = (load_autoencoder(f, device=CPU) for f in (imported, tmp_path / "ae"))
    with torch.no_grad():
        mean, expected = boxed.net.encode(volume())[0], whole.net.encode(volume())[0]
        made = boxed.net.decode(expected)
    assert float((mean - expected).norm() / expected.norm()) < 2 * stated
    assert made.shape == volume().shape
    assert boxed.digest != whole.digest
    assert scan_bytes(boxed, (32, 40, 32)) < scan_bytes(whole, (32, 40, 32))


@pytest.mark.slow
def test_one_box_over_everything_is_the_whole(tmp_path, weights, imported):
    import_autoencoder(
        weights, tmp_path / "ae", device=CPU, norm_groups=8, boxes=(64, 64, 64), **GRID
    )
    whole, boxed = (load_autoencoder(f, device=CPU).net for f in (imported, tmp_path / "ae"))
    with torch.no_grad():
        torch.testing.assert_close(boxed.encode(volume())[0], whole.encode(volume())[0])


def test_boxes_that_the_factor_does_not_divide_are_refused(tmp_path, weights):
    with pytest.raises(ContractError, match=r"--boxes: grid \(30, 32, 32\).*multiple of 4"):
        import_autoencoder(
            weights, tmp_path / "ae", device=CPU, norm_groups=8, boxes=(30, 32, 32), **GRID
        )
    assert not (tmp_path / "ae").exists()


def test_a_store_is_encoded_with_a_maisi_autoencoder(tmp_path, imported):
    from pipeline.models.frozen import for_volumes

    store = make_volumes(tmp_path / "v.zarr", subjects(2))
    frozen = for_volumes(load_autoencoder(imported, device=CPU), store.attributes.grid)
    encode_volumes(store, frozen, tmp_path / "l.zarr", EncodeParams(batch_size=2), device=CPU)
    latents = open_latents(tmp_path / "l.zarr")
    first = latents.load(latents.attributes.scan_ids[:1]).mean.float()
    shown = store.load_unit_interval(store.attributes.scan_ids[:1])
    with torch.no_grad():
        np.testing.assert_allclose(first, frozen.net.encode(shown)[0], atol=2e-2)


@pytest.mark.slow
def test_an_exported_maisi_bundle_names_monais_own_class(tmp_path, imported):
    export_monai_bundle(imported, tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    definition = dict(config["network_def"])
    assert definition.pop("_target_").endswith("AutoencoderKlMaisi")
    net = AutoencoderKlMaisi(**definition)
    tensors = torch.load(tmp_path / "bundle" / "models" / "model.pt", weights_only=True)
    net.load_state_dict(tensors)
    import_autoencoder(tmp_path / "bundle", tmp_path / "again", device=CPU)
    again = load_autoencoder(tmp_path / "again", device=CPU).net
    with torch.no_grad():
        torch.testing.assert_close(again.encode(volume())[0], network().encode(volume())[0])
