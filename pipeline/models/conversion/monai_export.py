"""Export an autoencoder as a MONAI bundle, which runs without this package."""

from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from pipeline import __version__
from pipeline.models.frozen import load_autoencoder, trained_grid
from pipeline.models.model_folder import CARD
from pipeline.nets.autoencoder import Autoencoder
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import few
from schemas.errors import ContractError
from schemas.grid import Grid

MAISI = "monai.apps.generation.maisi.networks.autoencoderkl_maisi.AutoencoderKlMaisi"
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def export_monai_bundle(ae: Path, out: Path) -> None:
    """Write configs/metadata.json, configs/inference.json, models/model.pt and docs/README.md.

    The bundle reconstructs every NIfTI file of `dataset_dir` (preprocessed, intensities in [0, 1])
    into `output_dir`, with the posterior's mean as latent.

    Raises
    ------
    ContractError
        If `ae` holds no autoencoder, its weights do not fit, or `out` holds something else.
    """
    _check_bundle(out)
    frozen = load_autoencoder(ae, device=torch.device("cpu"))
    assert isinstance(frozen.net, Autoencoder)  # the other kind has no model folder
    weights = out / "models" / "model.pt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(frozen.net.net.state_dict(), weights)
    grid = trained_grid(frozen.config)
    write_json(out / "configs" / "metadata.json", _metadata(grid))
    write_json(
        out / "configs" / "inference.json",
        _inference(monai_arguments(frozen.config["architecture"]), frozen.net.patch, grid),
    )
    write_atomic(out / "docs" / "README.md", (ae / CARD).read_text())


def _check_bundle(out: Path) -> None:
    """Refuse to write a bundle into a folder that holds other files."""
    held = [] if not out.is_dir() else [p.name for p in out.iterdir() if p.name[:1] != "."]
    others = sorted(set(held) - {"configs", "models", "docs", "LICENSE"})
    if others or (held and not (out / "models" / "model.pt").is_file()):
        raise ContractError(
            f"{out}: holds other files than a bundle's ({few(others or sorted(held), 3)}); choose"
            " an empty or a new folder for --out"
        )


def monai_arguments(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return MONAI's class and its arguments for an architecture of `Autoencoder`."""
    levels, depth = len(architecture["channels"]), architecture["num_res_blocks"]
    channels_in = architecture.get("patch", 1) ** 3
    maisi = architecture.get("maisi", False)
    return {
        "_target_": MAISI if maisi else "AutoencoderKL",
        **({"num_splits": 1} if maisi else {}),
        "spatial_dims": 3,
        "in_channels": channels_in,
        "out_channels": channels_in,
        "num_channels" if maisi else "channels": list(architecture["channels"]),
        "latent_channels": architecture["latent_channels"],
        "num_res_blocks": [depth] * levels if isinstance(depth, int) else list(depth),
        "norm_num_groups": architecture["norm_groups"],
        "norm_eps": architecture.get("norm_eps", 1e-6),
        "attention_levels": list(architecture.get("attention_levels") or [False] * levels),
        "with_encoder_nonlocal_attn": architecture.get("encoder_attention", False),
        "with_decoder_nonlocal_attn": architecture.get("decoder_attention", False),
        "include_fc": architecture.get("attention_projection", True),
        "use_combined_linear": architecture.get("combined_qkv", False),
        "use_convtranspose": architecture.get("transposed_upsampling", False),
    }


def _inference(arguments: dict[str, Any], patch: int, grid: Grid) -> dict[str, Any]:
    return {
        "imports": [
            "$import pathlib",
            "$import torch",
            "$from monai.networks.utils import pixelshuffle",
            "$from monai.networks.utils import pixelunshuffle",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "patch": patch,
        "grid": grid.document(),
        "network_def": arguments,
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device,"
        " weights_only=True)",
        "network": "$@network_def.to(@device).eval()",
        "files": "$sorted(str(f) for f in pathlib.Path(@dataset_dir).glob('*.nii*'))",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImage", "image_only": True, "ensure_channel_first": True},
                {"_target_": "Orientation", "axcodes": "RAS"},
                {"_target_": "ResizeWithPadOrCrop", "spatial_size": list(grid.shape)},
                {"_target_": "ThresholdIntensity", "threshold": 0.0, "above": True},
                {
                    "_target_": "ThresholdIntensity",
                    "threshold": 1.0,
                    "above": False,
                    "cval": 1.0,
                },
            ],
        },
        "encode": "$lambda x: @network.encode(pixelunshuffle(x[None].to(@device), 3, @patch))[0]",
        "decode": "$lambda z: pixelshuffle(@network.decode(z), 3, @patch)[0].clamp(0, 1)",
        "saver": {
            "_target_": "SaveImage",
            "output_dir": "@output_dir",
            "output_postfix": "reconstruction",
            "separate_folder": False,
        },
        "reconstruct": "$lambda x: x.clone().copy_(@decode(@encode(x.as_tensor())))",
        "initialize": ["$@network_def.load_state_dict(@weights)", "$torch.set_grad_enabled(False)"],
        "run": ["$list(map(lambda f: @saver(@reconstruct(@preprocessing(f))), @files))"],
    }


def _metadata(grid: Grid) -> dict[str, Any]:
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": 1,
        "spatial_shape": list(grid.shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "T1w"},
    }
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: "Exported by ldae-pipeline"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.4.2"},
        "task": "Compression of T1w brain MRI",
        "description": "AutoencoderKL on preprocessed T1w volumes: MNI152, skull-stripped, [0, 1]",
        "authors": "The authors of ldae-pipeline, or of the checkpoint it imported; see docs",
        "copyright": "See docs/README.md",
        "intended_use": "Research; not a medical device",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": image}},
    }
