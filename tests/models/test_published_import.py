"""Published weights imported, against a second implementation that reads the files' own names."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from pipeline.diffusion.samplers import invert, sample
from pipeline.models.conversion.checkpoint import check_sums, load_tensors
from pipeline.models.conversion.published_import import ImportChoices, ImportFiles, import_ldae
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.weights_file import write_weights
from schemas.errors import ContractError, ParamsError
from tests.support import published_layout as layout
from tests.support.published_models import make_autoencoder, write_probe

CPU = torch.device("cpu")
SMALL = layout.SMALL
QUICK = ImportChoices(steps=0)
LATENT = (1, 3, 4, 8, 8)
"""Another shape than the grid's, with y and z that both poolings divide."""


@pytest.fixture(scope="module")
def ae(tmp_path_factory):
    return make_autoencoder(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three big files' two others and the three small ones."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(layout.small_decoder(), folder / "decoder.pth")
    torch.save(layout.make_encoder(), folder / "encoder.pth")
    write_probe(folder)
    return folder


def imported(files: Path, ae: Path, out: Path, choices=QUICK, **changes) -> Path:
    given = {"decoder": files / "decoder.pth", "encoder": files / "encoder.pth"} | changes
    import_ldae(ImportFiles(**given), out, ae=ae, device=CPU, choices=choices)
    return out


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def differences(folder: Path, decoder, encoder, *, heads: int = 1, x=None) -> dict[str, float]:
    """Largest difference of y_sem, eps, G and one DDIM step each way from the second way."""
    net = load_ldae(folder, device=CPU).net
    depth = net.encoder.num_slices
    volume = torch.rand(1, 1, 40, 48, depth, generator=torch.Generator().manual_seed(1))
    y_sem = layout.naive_y_sem(encoder, volume)
    x = noise(*LATENT) if x is None else x
    t = torch.tensor([333.0])
    trunk = net.diffusion.denoiser.trunk(x, t)
    steps = {}
    for way, (here, there), step in (("up", (0, 49), invert), ("down", (999, 949), sample)):
        expected = layout.naive_ddim(
            x, layout.naive_noise(decoder, x, here, y_sem, heads=heads), here, there
        )
        # The nodes of twenty steps are 0, 49, …, 949, 999; the first step alone is compared.
        seen = []

        def model(x_t, t, seen=seen):
            seen.append(x_t)
            return net.model(y_sem)(x_t, t) if len(seen) == 1 else torch.zeros_like(x_t)

        step(model, x, net.diffusion.schedule, sampler="ddim", num_inference_steps=20)
        steps[f"DDIM {way}"] = (seen[1], expected)
    pairs = steps | {
        "y_sem": (net.encoder(volume), y_sem),
        "eps": (
            net.diffusion.denoiser.decoder(trunk), layout.naive_eps(decoder, x, 333, heads=heads)
        ),
        "G": (
            net.estimator(trunk, y_sem),
            layout.naive_gradient(decoder, x, 333, y_sem, heads=heads),
        ),
    }  # fmt: skip
    return {name: float((a - b).abs().max()) for name, (a, b) in pairs.items()}


def test_imported_networks_give_what_a_second_implementation_gives(tmp_path, files, ae):
    folder = imported(files, ae, tmp_path / "ldae")
    found = differences(folder, layout.small_decoder(), layout.make_encoder())
    assert max(found.values()) <= 1e-4, found


@pytest.mark.slow
def test_attention_of_several_heads_is_grouped_by_head(tmp_path, files, ae):
    folder = imported(files, ae, tmp_path / "ldae", ImportChoices(steps=0, heads=4))
    decoder, encoder = layout.small_decoder(), layout.make_encoder()
    found = differences(folder, decoder, encoder, heads=4)
    assert max(found.values()) <= 1e-4, found
    assert differences(folder, decoder, encoder, heads=1)["eps"] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "moved"),
    [
        (("output_blocks.0.0.in_layers.2.weight", "output_blocks.1.0.in_layers.2.weight"), "eps"),
        (("shift_middle_block.0.emb_layers.1.weight",
          "shift_middle_block.0.emb_z_layers.1.weight"), "G"),
        (("shift_out.2.weight", "out.2.weight"), "G"),
        (("time_embed.0.bias", "time_embed.2.bias"), "eps"),
    ],
)  # fmt: skip
def test_one_swapped_tensor_is_noticed(tmp_path, files, ae, pair, moved):
    decoder = layout.small_decoder()
    a, b = pair
    if decoder[a].shape != decoder[b].shape:
        pytest.fail("choose tensors of one shape")
    torch.save(decoder | {a: decoder[b], b: decoder[a]}, tmp_path / "decoder.pth")
    folder = imported(files, ae, tmp_path / "ldae", decoder=tmp_path / "decoder.pth")
    assert differences(folder, decoder, layout.make_encoder())[moved] > 1e-3


@pytest.mark.parametrize(
    "pair", [("query", "key"), pytest.param(("key", "value"), marks=pytest.mark.slow)]
)
def test_a_swapped_projection_of_the_encoder_is_noticed(tmp_path, files, ae, pair):
    encoder = layout.make_encoder()
    a, b = (f"{name}_projection.weight" for name in pair)
    torch.save(encoder | {a: encoder[b], b: encoder[a]}, tmp_path / "encoder.pth")
    folder = imported(files, ae, tmp_path / "ldae", encoder=tmp_path / "encoder.pth")
    net = load_ldae(folder, device=CPU).net.encoder
    volume = torch.rand(1, 1, 40, 48, net.num_slices, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        difference = net(volume) - layout.naive_y_sem(encoder, volume)
    assert float(difference.abs().max()) > 1e-3


def test_the_small_files_have_the_number_of_tensors_that_was_published():
    """530 tensors of 865.3 M numbers at full size."""
    shapes = layout.small_decoder()
    assert len(shapes) == 530


# What is not to be imported


def refusal(files: Path, ae: Path, tmp_path: Path, choices=QUICK, **changes) -> str:
    """The one line that an import ends with; nothing may have been written."""
    with pytest.raises((ContractError, ParamsError)) as caught:
        imported(files, ae, tmp_path / "ldae", choices, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(tmp_path.glob("*ldae*")), "something was written"
    return message


def saved(path: Path, tensors) -> Path:
    torch.save(tensors, path)
    return path


def test_a_decoder_without_its_branch_is_refused(files, ae, tmp_path):
    stage_1 = saved(tmp_path / "stage1.pth", layout.make_decoder(branch=False))
    assert "without its gradient branch" in refusal(files, ae, tmp_path, decoder=stage_1)


def test_a_decoder_with_its_branch_and_no_encoder_is_refused(files, ae, tmp_path):
    assert "needs --encoder; --stage-1" in refusal(files, ae, tmp_path, encoder=None)


def test_an_encoder_of_another_width_is_refused(files, ae, tmp_path):
    wide = layout.Sizes(widths=(8, 16, 24, 48))
    encoder = saved(tmp_path / "wide.pth", layout.make_encoder(wide))
    assert "y_sem of 48 numbers, the decoder's label_emb reads 32" in refusal(
        files, ae, tmp_path, encoder=encoder
    )


def test_a_classifier_of_torchvision_is_no_encoder(files, ae, tmp_path):
    root = "backbone.backbone."
    classifier = {
        key.removeprefix(root): value
        for key, value in layout.make_encoder(twice=False).items()
        if key.startswith(root)
    }
    classifier["classifier.2.weight"] = torch.ones(10, 32)
    path = saved(tmp_path / "convnext_small.pth", classifier)
    message = refusal(files, ae, tmp_path, encoder=path)
    assert "a ConvNeXt classifier as torchvision has it" in message


def test_a_swapped_pair_of_files_is_refused(files, ae, tmp_path):
    message = refusal(
        files, ae, tmp_path, decoder=files / "encoder.pth", encoder=files / "decoder.pth"
    )
    assert "were --decoder and --encoder swapped?" in message
    message = refusal(
        files, ae, tmp_path, probe=files / "disease_classifier.ckpt",
        mean=files / "semantic_std.pt", std=files / "semantic_mean.pt",
    )  # fmt: skip
    assert "were --mean and --std swapped?" in message


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_an_autoencoder_is_neither_decoder_nor_encoder(files, ae, tmp_path, name):
    path = ae.parent / "autoencoderkl.pth"
    assert "but an autoencoder; see import-ae" in refusal(files, ae, tmp_path, **{name: path})


def test_the_autoencoder_is_not_written_over(files, ae, tmp_path):
    with pytest.raises(ContractError, match="holds a model of kind 'ae'"):
        imported(files, ae, ae)
    load_autoencoder(ae, device=CPU)


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_a_truncated_file_is_refused(files, ae, tmp_path, name):
    data = (files / f"{name}.pth").read_bytes()
    cut = tmp_path / f"{name}.pth"
    cut.write_bytes(data[: len(data) // 2])
    assert f"{cut}: no readable checkpoint" in refusal(files, ae, tmp_path, **{name: cut})


def test_a_file_that_is_missing_or_something_else_is_refused(files, ae, tmp_path):
    assert "no such file" in refusal(files, ae, tmp_path, decoder=tmp_path / "absent.pth")
    assert "a folder" in refusal(files, ae, tmp_path, decoder=files)
    text = tmp_path / "decoder.pth"
    text.write_text("not a checkpoint")
    assert "not a checkpoint" in refusal(files, ae, tmp_path, decoder=text)
    message = refusal(files, ae, tmp_path, decoder=files / "semantic_mean.pt")
    assert "no decoder of the published LDAE" in message


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_a_file_with_one_changed_byte_is_refused(files, ae, tmp_path, name):
    data = bytearray((files / f"{name}.pth").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / f"{name}.pth"
    path.write_bytes(data)
    message = refusal(files, ae, tmp_path, **{name: path})
    assert re.search(r"damaged, 1 of \d+ parts differ", message)
    assert str(path) in message


def test_a_file_without_checksums_is_read(files, ae, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "decoder.pth", layout.small_decoder())
    finally:
        torch.serialization.set_crc32_options(True)
    check_sums(path)
    assert load_tensors(path).keys() == layout.small_decoder().keys()


def test_quantised_weights_are_refused(files, ae, tmp_path):
    decoder = layout.small_decoder()
    decoder["out.2.bias"] = decoder["out.2.bias"].to(torch.int8)
    path = saved(tmp_path / "decoder.pth", decoder)
    assert "out.2.bias: of type torch.int8" in refusal(files, ae, tmp_path, decoder=path)


class Foreign:
    """Stands for a class of the authors' configuration."""


def test_hyperparameters_of_foreign_classes_are_refused_with_what_to_do(files, ae, tmp_path):
    state = {f"ema_decoder.{k}": v for k, v in layout.small_decoder().items()}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"config": Foreign()}}, path)
    message = refusal(files, ae, tmp_path, decoder=path)
    assert "holds code or objects beside tensors" in message
    assert "Foreign" in message
    assert "torch.save(torch.load(FILE, weights_only=False)['state_dict']" in message


def test_two_names_of_one_tensor_must_agree(files, ae, tmp_path):
    encoder = layout.make_encoder()
    key = "slice_distributed.module.backbone.features.1.0.block.3.weight"
    path = saved(tmp_path / "encoder.pth", encoder | {key: encoder[key] + 1})
    message = refusal(files, ae, tmp_path, encoder=path)
    assert f"{key}: one tensor under two names" in message
    absent = {k: v for k, v in encoder.items() if k != key}
    path = saved(tmp_path / "encoder.pth", absent)
    assert "under backbone. and slice_distributed.module. alike" in refusal(
        files, ae, tmp_path, encoder=path
    )


@pytest.mark.slow
def test_an_encoder_listed_once_is_the_same(tmp_path, files, ae):
    path = saved(tmp_path / "once.pth", layout.make_encoder(twice=False))
    one = imported(files, ae, tmp_path / "a", encoder=path)
    two = imported(files, ae, tmp_path / "b")
    a, b = (json.loads((f / "config.json").read_text())["weights_sha256"] for f in (one, two))
    assert a == b


DECODER_KEYS = [
    "label_emb.bias",
    "input_blocks.0.0.weight",
    "input_blocks.4.0.out_layers.3.weight",
    "input_blocks.4.1.qkv.weight",
    "output_blocks.5.2.emb_layers.1.bias",
    "shift_middle_block.1.proj_out.weight",
    "shift_output_blocks.8.0.emb_z_layers.1.weight",
    "out.0.weight",
]
FAST_KEYS = ("label_emb.bias", "input_blocks.0.0.weight")
DAMAGES = [
    pytest.param(damage, key, marks=() if key in FAST_KEYS else pytest.mark.slow)
    for damage in ("missing", "misshapen", "not finite")
    for key in DECODER_KEYS
]


@pytest.mark.parametrize(("damage", "key"), DAMAGES)
def test_a_wrong_tensor_of_the_decoder_is_refused_by_its_own_name(files, ae, tmp_path, key, damage):
    decoder = layout.small_decoder()
    value = decoder.pop(key)
    if damage == "misshapen":
        decoder[key] = torch.cat([value, value])
    elif damage == "not finite":
        decoder[key] = torch.full_like(value, float("nan"))
    path = saved(tmp_path / "decoder.pth", decoder)
    message = refusal(files, ae, tmp_path, decoder=path)
    assert str(path) in message
    if not (key.startswith("input_blocks.0") and damage == "misshapen"):
        assert key in message


@pytest.mark.parametrize(
    "key",
    [
        "positional_encoding.pe",
        "soft_attention.linear.bias",
        "value_projection.weight",
        "cross_attention.in_proj_weight",
        "layer_norm_after_attention.bias",
    ],
)
def test_a_missing_tensor_of_the_encoder_is_refused_by_its_own_name(files, ae, tmp_path, key):
    encoder = layout.make_encoder()
    del encoder[key]
    path = saved(tmp_path / "encoder.pth", encoder)
    message = refusal(files, ae, tmp_path, encoder=path)
    assert key in message
    assert str(path) in message


def test_a_tensor_too_many_is_refused_by_its_own_name(files, ae, tmp_path):
    extra = {"extra_head.weight": torch.ones(2)}
    path = saved(tmp_path / "encoder.pth", layout.make_encoder() | extra)
    assert "extra_head.weight: unexpected" in refusal(files, ae, tmp_path, encoder=path)
    path = saved(tmp_path / "decoder.pth", layout.small_decoder() | extra)
    assert "extra_head.weight: unexpected" in refusal(files, ae, tmp_path, decoder=path)


def test_an_autoencoder_of_other_latents_or_another_grid_is_refused(files, ae, tmp_path):
    four = saved(tmp_path / "d.pth", layout.make_decoder(layout.Sizes(latents=4)))
    assert "latents of 4 channels" in refusal(files, ae, tmp_path, decoder=four)
    more = saved(tmp_path / "e.pth", layout.make_encoder(layout.Sizes(slices=40)))
    message = refusal(files, ae, tmp_path, encoder=more)
    assert "reads 40 axial slices" in message
    assert "--shape 32 40 40" in message
    raw = ae.parent / "autoencoderkl.pth"
    assert "import-ae autoencoderkl.pth" in refusal(files, raw, tmp_path)


def test_a_direction_of_another_length_is_refused(files, ae, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_probe(other, dim=48)
    names = {"probe": "disease_classifier.ckpt", "mean": "semantic_mean.pt",
             "std": "semantic_std.pt"}  # fmt: skip
    for wrong in names:
        paths = {k: (other if k == wrong else files) / name for k, name in names.items()}
        message = refusal(files, ae, tmp_path, **paths)
        assert "48 numbers, expected 32" in message
        assert str(paths[wrong]) in message
    assert "--std: needed too" in refusal(
        files, ae, tmp_path, probe=files / names["probe"], mean=files / names["mean"]
    )


# What training checkpoints hold


def lightning(path: Path, *, stage: int) -> Path:
    """As Lightning writes: plain hyperparameters, both sets of weights, the autoencoder too."""
    parts = {"unet": layout.make_decoder(branch=False, seed=7)}
    averaged = {"ema_unet": layout.make_decoder(branch=False)}
    if stage == 2:
        parts = {"decoder": layout.make_decoder(seed=7), "encoder": layout.make_encoder(seed=8)}
        averaged = {"ema_decoder": layout.small_decoder(), "ema_encoder": layout.make_encoder()}
    state = {"vae.encoder.blocks.0.conv.weight": torch.ones(8, 1, 3, 3, 3)}
    for name, tensors in (parts | averaged).items():
        state |= {f"{name}.{key}": value for key, value in tensors.items()}
    torch.save(
        {"epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 1e-4, "sizes": [1, 2]}}, path
    )
    return path


@pytest.mark.slow
def test_a_lightning_checkpoint_gives_its_averaged_weights_or_the_raw_ones(tmp_path, files, ae):
    path = lightning(tmp_path / "last.ckpt", stage=2)
    plain = imported(files, ae, tmp_path / "plain")
    averaged = imported(files, ae, tmp_path / "ema", decoder=path, encoder=None)
    raw = imported(
        files,
        ae,
        tmp_path / "raw",
        ImportChoices(weights="raw", steps=0),
        decoder=path,
        encoder=path,
    )
    digests = [
        json.loads((f / "config.json").read_text())["weights_sha256"]
        for f in (plain, averaged, raw)
    ]
    assert digests[0] == digests[1] != digests[2]
    found = differences(raw, layout.make_decoder(seed=7), layout.make_encoder(seed=8))
    assert max(found.values()) <= 1e-4, found


def test_a_checkpoint_without_averaged_weights_says_which_there_are(tmp_path, files, ae):
    state = {f"decoder.{k}": v for k, v in layout.small_decoder().items()}
    path = saved(tmp_path / "last.ckpt", {"state_dict": state})
    message = refusal(files, ae, tmp_path, decoder=path)
    assert "nothing of ema_decoder. or ema_unet. in it, but decoder." in message
    assert "--weights raw" in message


@pytest.mark.parametrize(
    "source",
    ["decoder.pth", *(pytest.param(s, marks=pytest.mark.slow) for s in ("checkpoint", "plain"))],
)
def test_stage_1_alone_becomes_a_model_that_training_starts_from(tmp_path, files, ae, source):
    choices = ImportChoices(steps=3, stage_1=source == "decoder.pth")
    path = files / "decoder.pth"
    if source == "checkpoint":
        path = lightning(tmp_path / "stage1.ckpt", stage=1)
    elif source == "plain":
        path = saved(tmp_path / "unet.pth", layout.make_decoder(branch=False))
    folder = tmp_path / "ldm"
    done = import_ldae(ImportFiles(decoder=path), folder, ae=ae, device=CPU, choices=choices)
    assert done.kind == "ldm"
    assert "x_T_std" in done.proof
    net = load_diffusion(folder, device=CPU).diffusion
    x = noise(*LATENT)
    # Both begin with the same numbers: the branch is made after the denoiser.
    with torch.inference_mode():
        expected = layout.naive_eps(layout.small_decoder(), x, 40)
        made = net.eps(x, torch.tensor([40.0]))
    assert close(made, expected)


# What is written


def test_the_folder_says_whose_weights_it_holds_and_how_they_are_used(tmp_path, files, ae):
    names = {"probe": "disease_classifier.ckpt", "mean": "semantic_mean.pt",
             "std": "semantic_std.pt"}  # fmt: skip
    folder = imported(
        files,
        ae,
        tmp_path / "ldae",
        ImportChoices(steps=3),
        **{k: files / n for k, n in names.items()},
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["unet"]["pooling"] == "anisotropic"
    assert config["prediction"] == "epsilon"
    assert config["encoder"]["kind"] == "published"
    assert "modes" not in config["encoder"]
    card = (folder / "README.md").read_text()
    for name in ("decoder.pth", "encoder.pth"):
        assert hashlib.sha256((files / name).read_bytes()).hexdigest() in card
    assert "non-profit research only" in card
    net = load_ldae(folder, device=CPU).net
    latent = noise(*LATENT)
    assert close(net.diffusion.standardise(latent), latent * 0.8730)
    assert {"ae_ssim_brain", "ldae_ssim_brain", "x_T_mean", "x_T_std"} <= config["metrics"].keys()
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "directions.json", "metrics.json", "model.safetensors",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["ldae"]


@pytest.mark.slow
def test_an_import_of_random_weights_warns_of_what_looks_wrong(tmp_path, files, ae):
    done = import_ldae(
        ImportFiles(decoder=files / "decoder.pth", encoder=files / "encoder.pth"),
        tmp_path / "ldae", ae=ae, device=CPU, choices=ImportChoices(steps=3),
    )  # fmt: skip
    said = " ".join(done.remarks)
    assert "the autoencoder brings the template back with SSIM" in said
    assert "inverted x_T has mean" in said


@pytest.mark.slow
def test_half_precision_is_kept_on_request_and_computed_in_float32(tmp_path, files, ae):
    whole = imported(files, ae, tmp_path / "whole")
    half = imported(files, ae, tmp_path / "half", ImportChoices(half=True, steps=0))
    size = [(f / "model.safetensors").stat().st_size for f in (whole, half)]
    assert size[1] < 0.52 * size[0]
    found = differences(half, layout.small_decoder(), layout.make_encoder())
    assert max(found[name] for name in ("y_sem", "eps", "G")) < 0.02
    assert next(load_ldae(half, device=CPU).net.parameters()).dtype == torch.float32


@pytest.mark.slow
def test_what_comes_in_half_precision_stays_so(tmp_path, files, ae):
    tensors = {k: v.half() for k, v in layout.small_decoder().items()}
    path = saved(tmp_path / "decoder.pth", tensors)
    folder = imported(files, ae, tmp_path / "ldae", decoder=path)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert weights.get_slice("estimator.embed.weight").get_dtype() == "F16"


@pytest.mark.slow
def test_an_import_over_another_replaces_it_whole(tmp_path, files, ae):
    folder = imported(files, ae, tmp_path / "ldae", ImportChoices(steps=0, half=True))
    before = json.loads((folder / "config.json").read_text())["weights_sha256"]
    imported(files, ae, folder)
    load_ldae(folder, device=CPU)
    assert json.loads((folder / "config.json").read_text())["weights_sha256"] != before


@pytest.mark.slow
def test_a_large_model_is_read_in_place(tmp_path, files, ae, monkeypatch):
    folder = imported(files, ae, tmp_path / "ldae")
    expected = load_ldae(folder, device=CPU).net
    monkeypatch.setattr("pipeline.models.artefact.MAPPED_FROM", 1)
    mapped = load_ldae(folder, device=CPU).net
    torch.testing.assert_close(mapped.state_dict(), expected.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(
        mapped.diffusion.schedule.betas, expected.diffusion.schedule.betas, atol=0, rtol=0
    )
    assert not any(p.requires_grad or p.is_meta for p in mapped.parameters())
    (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-1] + b"x"
    )
    with pytest.raises(ContractError, match="damaged"):
        load_ldae(folder, device=CPU)


def test_weights_are_written_as_the_library_writes_them(tmp_path):
    tensors = {
        "b": torch.randn(3, 4), "a": torch.randn(2).half(), "n": torch.tensor(3),
        "m": torch.randn(5).bfloat16(), "d": torch.randn(2, 2).double(), "é": torch.zeros(0),
        "t": torch.randn(4, 6).t(), "q": torch.ones(3, dtype=torch.bool),
    }  # fmt: skip
    digest = write_weights(tmp_path / "w.safetensors", tensors)
    data = (tmp_path / "w.safetensors").read_bytes()
    assert data == save({k: v.contiguous() for k, v in tensors.items()})
    assert digest == hashlib.sha256(data).hexdigest()
