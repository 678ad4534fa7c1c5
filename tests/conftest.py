"""Shared fixtures: small stores and a tiny trained autoencoder, made once a session."""

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from pipeline.stores.volumes import BIAS_GRID, VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.autoencoder import TrainAeParams
from schemas.stores import StoreAttributes
from tests.support.tiny_study import make_tiny_study

SHAPE = (16, 24, 20)
torch.set_num_threads(1)
# Test processes share the cores: threads of each would only wait for one another.
threadpool_limits(1)


def smooth_volume(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A blob of smooth noise in a zero background, uint8."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    field = 1 + 254 * (field - field.min()) / np.ptp(field)
    inside = np.zeros(shape, bool)
    inside[2:-2, 3:-3, 2:-2] = True
    return np.where(inside, field, 0).astype(np.uint8)


def volume_attributes(
    scan_ids: list[str], fingerprints: list[str] | None = None
) -> StoreAttributes:
    return StoreAttributes(
        kind="volumes",
        made_by="test",
        params={},
        digests={"preprocessing": "test"},
        grid={
            "shape": list(SHAPE),
            "affine": np.diag([3.0, 3, 3, 1]).tolist(),
            "orientation": "RAS",
        },
        scan_ids=scan_ids,
        fingerprints=fingerprints or [f"fingerprint-{s}" for s in scan_ids],
    )


def volume_row(seed: int) -> VolumeRow:
    return VolumeRow(
        volume=smooth_volume(seed),
        native_to_mni=np.eye(4) + seed,
        native_affine=np.eye(4),
        native_shape=np.array([30, 40, 50], np.int32),
        intensity_range=np.array([0.0, 100.0]),
        log_bias=np.full(BIAS_GRID.shape, 0.01 * seed, np.float16),
    )


def make_volumes(path: Path, scan_ids: list[str]) -> VolumeStore:
    rows = (volume_row(int(s[4:])) for s in scan_ids)
    write_volumes(path, volume_attributes(scan_ids), rows)
    return open_volumes(path)


def subjects(count: int) -> list[str]:
    return [f"sub-{i:03d}" for i in range(count)]


@pytest.fixture(autouse=True)
def _log_levels():
    """Undo the log levels that a command set in an earlier test of this process."""
    for name in ("pipeline", "stages"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> VolumeStore:
    """Twenty scans: more than one shard."""
    return make_volumes(tmp_path_factory.mktemp("volumes") / "volumes.zarr", subjects(20))


@pytest.fixture(scope="session")
def split() -> dict[str, list[str]]:
    ids = subjects(20)
    return {"train": ids[:12], "val": ids[12:15], "test": ids[15:]}


TINY_AE = TrainAeParams(
    steps=12, channels=(8, 16), checkpoint_every=6, precision="fp32", ema_decay=0.5
)


@pytest.fixture(scope="session")
def autoencoder_path(
    tmp_path_factory: pytest.TempPathFactory, volumes: VolumeStore, split: dict[str, list[str]]
) -> Path:
    from pipeline.training.autoencoder import train_autoencoder

    out = tmp_path_factory.mktemp("models") / "ae"
    train_autoencoder(volumes, split, TINY_AE, out, device=torch.device("cpu"))
    return out


@pytest.fixture(scope="session")
def latents_path(
    tmp_path_factory: pytest.TempPathFactory, volumes: VolumeStore, autoencoder_path: Path
) -> Path:
    from pipeline.encoding.run import encode_volumes
    from pipeline.models.frozen import load_autoencoder
    from schemas.params import EncodeParams

    device = torch.device("cpu")
    out = tmp_path_factory.mktemp("latents") / "latents.zarr"
    autoencoder = load_autoencoder(autoencoder_path, device=device)
    encode_volumes(
        volumes, autoencoder, out, EncodeParams(chunk_scans=8, precision="fp32"), device=device
    )
    return out


MadeOnce = Callable[[str, Callable[[Path], Any]], Any]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Share what is dear among test processes: `made_once(name, make)` returns what
    `make(folder)` returned to the process that came first. Never write into its folder.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Callable[[Path], Any]) -> Any:
        folder = base / name
        with FileLock(f"{folder}.lock"):
            if not (result := base / f"{name}.pickle").is_file():
                folder.mkdir()
                result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())

    return once


@pytest.fixture(scope="session")
def tiny_study(made_once: MadeOnce) -> Path:
    """A finished study: copy it."""
    return made_once("tiny", make_tiny_study)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what needs the tiny study, minutes in the making; the rest fills the gaps."""
    items.sort(key=lambda item: "tiny_study" not in getattr(item, "fixturenames", ()))
