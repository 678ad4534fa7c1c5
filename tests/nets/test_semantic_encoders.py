"""Every semantic encoder behind one interface: trained, frozen, loaded, embedded."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

import pipeline.training.latent_diffusion as stages
from pipeline.encoding.embed import embed_latents
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.models.pretrained import load_imagenet
from pipeline.nets.convnext import ConvNext
from pipeline.nets.published import PublishedEncoder
from pipeline.nets.semantic import LOUDNESS, LatentEncoder, build_encoder
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from schemas.diffusion import SemanticEncoderParams, TrainLdaeParams, TrainLdmParams
from schemas.errors import ContractError, ParamsError
from schemas.params import EmbedParams, Params
from stages.params_file import load_params
from tests.support.paths import ROOT
from tests.support.volumes import make_volumes, subjects

CPU = torch.device("cpu")
PARITY = ROOT / "params" / "parity.yaml"
SHARED = {"steps": 3, "batch_size": 4, "checkpoint_every": 3, "precision": "fp32"}
LDM = TrainLdmParams(
    **SHARED, denoiser={"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]}
)
CONFIGS = {
    "latent": {"channels": [8, 16]},
    "latent-2.5d": {"channels": [8, 16]},
    "slices": {"channels": [8, 16], "depths": [1, 2], "num_slices": 7},
}


def params(kind: str, **changes) -> TrainLdaeParams:
    shared = {"kind": kind, "dim": 12, "num_heads": 2, "tissue_modes": 0}
    encoder = shared | CONFIGS[kind] | changes
    return TrainLdaeParams(**SHARED, encoder=encoder)


@pytest.fixture(scope="module")
def ldm_path(tmp_path_factory, latents_path, split):
    out = tmp_path_factory.mktemp("semantic") / "ldm"
    stages.train_denoiser(open_latents(latents_path), split, LDM, out, device=CPU)
    return out


@pytest.mark.parametrize("grid", [(2, 3, 2), (1, 1, 1), (3, 5, 3), (4, 6, 5)])
def test_small_grids_are_halved_no_further_than_a_voxel(grid):
    encoder = LatentEncoder(in_channels=2, grid=grid, channels=(4, 8, 12), dim=5, num_heads=2)
    assert encoder.summarise(torch.randn(3, 2, *grid)).shape == (3, 5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_heads": 5}, "num_heads 5 must divide"),
        ({"weights": "imagenet.pth"}, "weights: read by slices and published alone"),
    ],
)
def test_settings_that_a_kind_cannot_use_are_refused(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        SemanticEncoderParams(**changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_encoder_trains_and_embeds(
    tmp_path, kind, ldm_path, latents_path, volumes, split, caplog
):
    store, frozen = open_latents(latents_path), load_diffusion(ldm_path, device=CPU)
    reads = volumes if kind == "slices" else None
    metrics = stages.train_ldae(
        store, split, frozen, params(kind), tmp_path / "ldae", device=CPU, volumes=reads
    )
    assert {"val_loss", "val_loss_shuffled", "val_loss_without", "val_loss_raw"} <= metrics.keys()
    assert {"x_T_mean", "x_T_std", "x_T_kurtosis"} <= metrics.keys()
    assert ("RANDOM weights" in caplog.text) == (kind == "slices")
    model = load_ldae(tmp_path / "ldae", device=CPU)
    embed_latents(
        store, model, tmp_path / "y.zarr", EmbedParams(batch_size=6), device=CPU, volumes=reads
    )
    y_sem = OpenStore(tmp_path / "y.zarr", kind="semantics").array("y_sem")[:]
    assert y_sem.shape == (20, 12)
    assert np.isfinite(y_sem).all()
    assert np.ptp(y_sem, axis=0).min() > 0
    train = y_sem[[store.row_of[s] for s in split["train"]]]
    if kind != "slices":  # as published, not standardised
        # Over training scans drawn out to where unseen ones lie; these here are not.
        np.testing.assert_allclose(train.mean(0), 0, atol=0.1)
        parts = model.net.encoder.parts()
        # In its own unit; more than 1 where modes of few scans are much of it.
        assert train[:, parts["summary"]].var(0).min() > 0.3 * LOUDNESS["summary"] ** 2
        amounts = np.square(train[:, parts["modes"]] - train[:, parts["modes"]].mean(0)).mean()
        assert amounts == pytest.approx(LOUDNESS["modes"] ** 2, rel=0.05)


@pytest.mark.slow
def test_slices_without_volumes_are_refused(tmp_path, ldm_path, latents_path, volumes, split):
    store, frozen = open_latents(latents_path), load_diffusion(ldm_path, device=CPU)
    with pytest.raises(ParamsError, match="--volumes"):
        stages.train_ldae(store, split, frozen, params("slices"), tmp_path / "x", device=CPU)
    few = make_volumes(tmp_path / "few.zarr", subjects(3))
    with pytest.raises(ContractError, match=r"3 scans not in the store.*the latents were made of"):
        stages.train_ldae(
            store, split, frozen, params("slices"), tmp_path / "x", device=CPU, volumes=few
        )
    stages.train_ldae(
        store, split, frozen, params("slices"), tmp_path / "ldae", device=CPU, volumes=volumes
    )
    model = load_ldae(tmp_path / "ldae", device=CPU)
    with pytest.raises(ContractError, match="--volumes"):
        embed_latents(store, model, tmp_path / "y.zarr", EmbedParams(), device=CPU)


def test_statistics_of_a_whole_batch_or_none():
    """What the training does with micro-batches relies on it."""
    torch.manual_seed(0)
    grid = {"in_channels": 3, "grid": (4, 6, 5)}
    shared = {"dim": 12, "num_heads": 2}
    made = {
        "latent": build_encoder(kind="latent", **grid, channels=(8, 16), **shared),
        "latent-2.5d": build_encoder(kind="latent-2.5d", **grid, channels=(8, 16), **shared),
        "slices": build_encoder(
            kind="slices", channels=(8, 16), depths=(1, 1), num_slices=5, **shared
        ),
    }
    for name, encoder in made.items():
        shape = (4, 1, 17, 24, 20) if encoder.reads == "volume" else (4, 3, 4, 6, 5)
        x = torch.randn(shape)
        alike = torch.allclose(encoder.train()(x)[:2], encoder(x[:2]), atol=1e-5)
        assert alike == (not encoder.mixes_batch), name


def torchvision_weights() -> dict[str, torch.Tensor]:
    """Weights as torchvision's ConvNeXt has them: RGB, with a classifier."""
    torch.manual_seed(1)
    own = ConvNext(channels=(8, 16), depths=(1, 2)).state_dict()
    tensors = {k.replace("norm.", "classifier.0.", 1) if k.startswith("norm.") else k: v
               for k, v in own.items()}  # fmt: skip
    tensors["features.0.0.weight"] = torch.randn(8, 3, 4, 4)
    tensors["classifier.2.weight"] = torch.randn(10, 16)
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_of_torchvision_load_as_they_are(tmp_path, suffix):
    tensors, path = torchvision_weights(), tmp_path / f"convnext{suffix}"
    torch.save(tensors, path) if suffix == ".pth" else save_file(tensors, path)
    backbone = ConvNext(channels=(8, 16), depths=(1, 2))
    load_imagenet(backbone, path)
    stem = tensors["features.0.0.weight"]
    grey = torch.randn(2, 1, 8, 12)
    expected = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), stem, stride=4)
    got = torch.nn.functional.conv2d(grey, backbone.features[0][0].weight, stride=4)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        backbone.features[3][1].block[5].weight, tensors["features.3.1.block.5.weight"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["missing", "text", "other architecture"])
def test_wrong_imagenet_weights_are_one_line(tmp_path, fault):
    path = tmp_path / "convnext.pth"
    if fault == "text":
        path.write_text("hello\n" * 50)
    elif fault == "other architecture":
        torch.save(torchvision_weights(), path)
    with pytest.raises(ContractError) as caught:
        load_imagenet(ConvNext(channels=(8, 24), depths=(1, 1)), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_published_encoder_has_the_size_of_convnext_small():
    """torchvision's convnext_small: 50,223,688 parameters, 769,000 of them in its last layer."""
    with torch.device("meta"):
        published = load_params(PARITY, []).train_ldae.encoder
        encoder = build_encoder(
            **published.model_dump(include={"kind", "channels", "depths", "dim", "num_heads"}),
            num_slices=128,
        )
    assert isinstance(encoder, PublishedEncoder)
    backbone = sum(p.numel() for p in encoder.backbone.parameters())
    assert backbone == 50_223_688 - 769_000 - 2 * 96 * 16


def test_parity_switches_on_every_published_choice():
    published, corrected = load_params(PARITY, []), Params()
    pairs = {
        "clamp": (published.evaluate.clip_x0, corrected.evaluate.clip_x0),
        "pooling": (published.train_ldm.denoiser.pooling, corrected.train_ldm.denoiser.pooling),
        "scale": (published.train_ldm.scale, corrected.train_ldm.scale),
        "prediction": (published.train_ldm.prediction, corrected.train_ldm.prediction),
        "average": (published.train_ldae.ema_per, corrected.train_ldae.ema_per),
        "posterior": (published.train_ldm.posterior, corrected.train_ldm.posterior),
        "encoder": (published.train_ldae.encoder.kind, corrected.train_ldae.encoder.kind),
        "sampler": (published.evaluate.sampler, corrected.evaluate.sampler),
    }
    assert pairs == {
        "clamp": (1.0, None),
        "pooling": ("anisotropic", "isotropic"),
        "scale": (0.873, "voxel"),
        "prediction": ("epsilon", "v"),
        "average": ("micro_batch", "step"),
        "posterior": ("stored_draw", "mean"),
        "encoder": ("published", "latent"),
        "sampler": ("ddim", "dpm"),
    }


def test_an_encoder_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="depths"):
        SemanticEncoderParams(kind="slices", channels=(8, 16))
    with pytest.raises(ValueError, match="num_heads"):
        SemanticEncoderParams(kind="latent-2.5d", channels=(8, 18), num_heads=4)
