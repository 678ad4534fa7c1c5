"""A BIDS dataset of four scans, a stand-in for the work on one image, and tiny models."""

from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.encoding.run import encode_volumes
from pipeline.imaging.atlas.mni152 import grid_affine, mni_grid
from pipeline.imaging.preprocess_scan import PreprocessedScan
from pipeline.imaging.qc import NUMBERS
from pipeline.models.frozen import load_autoencoder, load_diffusion
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes, write_volumes
from pipeline.training.autoencoder import train_autoencoder
from pipeline.training.latent_diffusion import train_denoiser, train_ldae
from schemas.errors import ScanError
from schemas.grid import GridParams
from schemas.params import EncodeParams
from tests.support.tiny_models import CPU, LDAE, LDM, TINY_AE
from tests.support.volumes import SHAPE, smooth_volume, subjects, volume_attributes, volume_row

SCANS = ("sub-01", "sub-02", "sub-03/ses-a", "sub-03/ses-b")


def make_dataset(root: Path) -> Path:
    for seed, name in enumerate(SCANS):
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        image = nib.Nifti1Image(np.full((9, 10, 11), 1 + seed, np.uint8), np.eye(4))
        image.to_filename(folder / f"{name.replace('/', '_')}_T1w.nii.gz")
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t70\tF\nsub-02\t71\tM\nsub-03\t72\tF\n"
    )
    (root / "dataset_description.json").write_text('{"Name": "four", "BIDSVersion": "1.8.0"}')
    return root


class Chain:
    """Stands in for preprocess_scan: the first voxel is the seed of the volume; 9 is no brain."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.numbers: dict[str, float] = {}
        """Numbers of quality control that differ from those of a sound T1w."""

    def __call__(self, path: Path, params: object, *, device: str = "cpu") -> PreprocessedScan:
        self.calls.append(path.name)
        seed = int(np.asarray(nib.load(path).dataobj)[0, 0, 0])
        if seed == 9:
            raise ScanError("no brain in it")
        return PreprocessedScan(
            bias=None,
            volume=smooth_volume(seed),
            native_to_mni=grid_affine(GridParams(shape=SHAPE, zooms=3.0)),
            native_affine=np.eye(4),
            native_shape=(9, 10, 11),
            intensity_range=(0.0, 1.0),
            qc=dict.fromkeys(NUMBERS, 1.0)
            | {"brain_ml": 1400.0, "ncc": 0.7, "dice": 0.97, "scaling": 1.3, "turned": 2.0}
            | {"strip_method": "deepbet", "wide_search": "false"}
            | self.numbers,
            notes=(),
            timings={"read": 0.1},
        )


def make_models(folder: Path) -> Path:
    """Train a tiny autoencoder and LDAE for the grid of the stand-in's volumes."""
    ids = subjects(12)
    grid = mni_grid(GridParams(shape=SHAPE, zooms=3.0))
    attributes = volume_attributes(ids).model_copy(update={"grid": grid})
    write_volumes(folder / "volumes.zarr", attributes, (volume_row(int(s[4:])) for s in ids))
    store = open_volumes(folder / "volumes.zarr")
    split = {"train": ids[:9], "val": ids[9:], "test": []}
    train_autoencoder(store, split, TINY_AE, folder / "ae", device=CPU)
    encode = EncodeParams(chunk_scans=8, precision="fp32")
    autoencoder = load_autoencoder(folder / "ae", device=CPU)
    encode_volumes(store, autoencoder, folder / "latents.zarr", encode, device=CPU)
    latents = open_latents(folder / "latents.zarr")
    train_denoiser(latents, split, LDM, folder / "ldm", device=CPU)
    frozen = load_diffusion(folder / "ldm", device=CPU)
    train_ldae(latents, split, frozen, LDAE, folder / "ldae", device=CPU)
    return folder
