"""Published weights imported, against a second implementation that reads the files' own names."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL

from pipeline.diffusion.samplers import invert, sample
from pipeline.foreign.importing import import_autoencoder
from pipeline.foreign.published_import import Choices, Files, import_ldae
from pipeline.frozen import load_ldae
from tests import published_layout as layout

CPU = torch.device("cpu")
SMALL = layout.SMALL
GRID = {"zooms": 6.0, "shape": (32, 40, 32)}
QUICK = Choices(steps=0)
LATENT = (1, 3, 4, 8, 8)
"""Another shape than the grid's, with y and z that both poolings divide."""


@pytest.fixture(scope="module")
def ae(tmp_path_factory):
    """An autoencoder in the layout that was published with the LDAE: factor 8, three channels."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("published")
    net = AutoencoderKL(
        spatial_dims=3, channels=(8, 8, 8, 8), latent_channels=3, num_res_blocks=(1,) * 4,
        norm_num_groups=8, attention_levels=(False,) * 4, with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    torch.save(net.state_dict(), folder / "autoencoderkl.pth")
    import_autoencoder(folder / "autoencoderkl.pth", folder / "ae", device=CPU, **GRID)
    return folder / "ae"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three big files' two others and the three small ones."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(layout.make_decoder(), folder / "decoder.pth")
    torch.save(layout.make_encoder(), folder / "encoder.pth")
    write_probe(folder)
    return folder


def write_probe(folder: Path, dim: int = SMALL.dim) -> None:
    generator = torch.Generator().manual_seed(5)
    weight, mean = (torch.randn(1, dim, generator=generator) for _ in range(2))
    torch.save({"weight": weight, "bias": torch.tensor([0.3])}, folder / "disease_classifier.ckpt")
    torch.save(mean[0], folder / "semantic_mean.pt")
    torch.save(mean[0].abs() + 0.5, folder / "semantic_std.pt")


def imported(files: Path, ae: Path, out: Path, choices=QUICK, **changes) -> Path:
    given = {"decoder": files / "decoder.pth", "encoder": files / "encoder.pth"} | changes
    import_ldae(Files(**given), out, ae=ae, device=CPU, choices=choices)
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
    for way, (here, there), step in (("up", (0, 499), invert), ("down", (999, 499), sample)):
        expected = layout.naive_ddim(
            x, layout.naive_noise(decoder, x, here, y_sem, heads=heads), here, there
        )
        # Two steps' nodes are 0, 499 and 999; the first step alone is compared.
        seen = []

        def model(x_t, t, seen=seen):
            seen.append(x_t)
            return net.model(y_sem)(x_t, t)

        step(model, x, net.diffusion.schedule, sampler="ddim", num_inference_steps=2)
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
    found = differences(folder, layout.make_decoder(), layout.make_encoder())
    assert max(found.values()) <= 1e-4, found
