"""A small published LDAE, imported, and a store that it reads. Made once a module."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from scipy.ndimage import gaussian_filter

from pipeline.encoding.embed import embed_latents
from pipeline.encoding.run import encode_volumes
from pipeline.models.conversion.monai_import import import_autoencoder
from pipeline.models.conversion.published_import import ImportChoices, ImportFiles, import_ldae
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import BIAS_GRID, VolumeRow, open_volumes, write_volumes
from schemas.params import EmbedParams, EncodeParams
from schemas.stores import StoreAttributes
from tests.support import published_layout as layout

CPU = torch.device("cpu")
SHAPE = (32, 40, 32)
GRID = {"zooms": 6.0, "shape": SHAPE}
NAMES = {
    "probe": "disease_classifier.ckpt",
    "mean": "semantic_mean.pt",
    "std": "semantic_std.pt",
}


def make_autoencoder(folder: Path) -> Path:
    """Return an autoencoder in the layout that was published: factor 8, three channels."""
    torch.manual_seed(3)
    net = AutoencoderKL(
        spatial_dims=3,
        channels=(8, 8, 8, 8),
        latent_channels=3,
        num_res_blocks=(1,) * 4,
        norm_num_groups=8,
        attention_levels=(False,) * 4,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
    torch.save(net.state_dict(), folder / "autoencoderkl.pth")
    import_autoencoder(
        folder / "autoencoderkl.pth",
        folder / "ae",
        device=CPU,
        intensity={"intensity": "minmax"},
        **GRID,
    )
    return folder / "ae"


def write_probe(folder: Path, dim: int = layout.SMALL.dim) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    weight, mean = (torch.randn(1, dim, generator=generator) for _ in range(2))
    made = {"weight": weight, "bias": torch.tensor([0.3])}
    torch.save(made, folder / NAMES["probe"])
    made |= {"mean": mean[0], "std": mean[0].abs() + 0.5}
    for name in ("mean", "std"):
        torch.save(made[name], folder / NAMES[name])
    return made


@dataclass(frozen=True)
class PublishedStudy:
    """Everything that commands need after the import."""

    folder: Path
    scans: int

    @property
    def ae(self) -> Path:
        return self.folder / "ae"

    @property
    def ldae(self) -> Path:
        return self.folder / "ldae"

    @property
    def directions(self) -> Path:
        return self.ldae / "directions.json"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes.zarr"

    @property
    def latents(self) -> Path:
        return self.folder / "latents.zarr"

    @property
    def semantics(self) -> Path:
        return self.folder / "semantics.zarr"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    def digest(self) -> str:
        return str(json.loads((self.ldae / "config.json").read_text())["weights_sha256"])


def volume_of(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    field = 1 + 254 * (field - field.min()) / np.ptp(field)
    inside = np.zeros(shape, bool)
    inside[4:-4, 5:-5, 4:-4] = True
    return np.where(inside, field, 0).astype(np.uint8)


def make_store(path: Path, scans: int, grid: dict) -> None:
    ids = [f"sub-{i:02d}" for i in range(scans)]
    attributes = StoreAttributes(
        kind="volumes",
        made_by="test",
        params={},
        digests={"preprocessing": "test"},
        grid=grid,
        scan_ids=ids,
        fingerprints=[f"print-{s}" for s in ids],
    )
    rows = (
        VolumeRow(
            volume=volume_of(i, grid.shape),
            native_to_mni=np.eye(4),
            native_affine=np.diag([6.0, 6, 6, 1]),
            native_shape=np.array([32, 40, 32], np.int32),
            intensity_range=np.array([0.0, 100.0]),
            log_bias=np.zeros(BIAS_GRID.shape, np.float16),
        )
        for i in range(scans)
    )
    write_volumes(path, attributes, rows)


def make_study(folder: Path, scans: int = 12) -> PublishedStudy:
    """Import small random weights and take scans through the commands' own functions."""
    study = PublishedStudy(folder, scans)
    make_autoencoder(folder)
    torch.save(layout.small_decoder(), folder / "decoder.pth")
    torch.save(layout.make_encoder(), folder / "encoder.pth")
    write_probe(folder)
    files = {name: folder / file for name, file in NAMES.items()}
    import_ldae(
        ImportFiles(decoder=folder / "decoder.pth", encoder=folder / "encoder.pth", **files),
        study.ldae,
        ae=study.ae,
        device=CPU,
        choices=ImportChoices(steps=0),
    )
    autoencoder = load_autoencoder(study.ae, device=CPU)
    make_store(study.volumes, scans, autoencoder.grid)
    volumes = open_volumes(study.volumes)
    params = EncodeParams(precision="fp32", batch_size=4)
    encode_volumes(volumes, autoencoder, study.latents, params, device=CPU)
    embed_latents(
        open_latents(study.latents),
        load_ldae(study.ldae, device=CPU),
        study.semantics,
        EmbedParams(batch_size=5),
        device=CPU,
        volumes=volumes,
    )
    ids = volumes.attributes.scan_ids
    pd.DataFrame(
        {
            "scan_id": ids, "subject_id": ids, "session_id": "", "path": "x.nii.gz",
            "age_years": 70.0, "sex": "F", "diagnosis": ["CN", "AD"] * (scans // 2),
            "months_from_first": 0.0, "split": "test", "source_digest": "x",
        }
    ).to_csv(study.manifest, index=False)  # fmt: skip
    return study
