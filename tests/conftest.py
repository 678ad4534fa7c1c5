"""Shared fixtures: small stores and a tiny trained autoencoder, made once a session."""

import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from pipeline.stores.volumes import VolumeStore
from schemas.evaluation import EvaluateParams
from schemas.params import PreprocessParams
from tests.support.made_once import MadeOnce, share
from tests.support.tiny_models import CPU, DIM, LDAE, LDM, TINY_AE
from tests.support.tiny_study import make_tiny_study
from tests.support.volumes import SCAN, make_volumes, subjects

torch.set_num_threads(1)
# Test processes share the cores: threads of each would only wait for one another.
threadpool_limits(1)
# For the same reason an example of hypothesis may take long. The same ones are tried every time.
settings.register_profile(
    "shared", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared")


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


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, latents_path: Path, split: dict[str, list[str]]
) -> Path:
    """Return a folder with stage 1 in `ldm` and stage 2 in `ldae`; never write into it."""
    import pipeline.training.latent_diffusion as stages
    from pipeline.models.frozen import load_diffusion
    from pipeline.stores.latents import open_latents

    root = tmp_path_factory.mktemp("trained")
    store = open_latents(latents_path)
    stages.train_denoiser(store, split, LDM, root / "ldm", device=CPU)
    frozen = load_diffusion(root / "ldm", device=CPU)
    stages.train_ldae(store, split, frozen, LDAE, root / "ldae", device=CPU)
    return root


@pytest.fixture(scope="session")
def ldae_path(trained: Path) -> Path:
    return trained / "ldae"


@pytest.fixture(scope="session")
def models(autoencoder_path, ldae_path):
    """Return the tiny models ready for inference in six steps."""
    from pipeline.models.inference import load_models

    params = EvaluateParams(num_inference_steps=6, batch_size=3, precision="fp32")
    return load_models(autoencoder_path, ldae_path, params, device=CPU)


@pytest.fixture
def opener(models, latents_path, volumes):
    """Return what opens scans of the stores for applications."""
    from pipeline.applications.runner import Opener
    from pipeline.stores.latents import open_latents

    latents = open_latents(latents_path)
    return Opener(models=models, latents=latents, volumes=volumes, preprocess=PreprocessParams())


@pytest.fixture
def source(opener):
    """Return a scan of the stores as applications see it."""
    return opener.open(SCAN)


@pytest.fixture
def direction():
    """Return a direction in y_sem that no probe fitted."""
    from pipeline.models.direction import Direction

    generator = np.random.default_rng(3)
    weight = generator.normal(size=DIM)
    return Direction(
        weight=weight / np.linalg.norm(weight),
        mean=generator.normal(size=DIM),
        std=generator.uniform(0.5, 2, DIM),
        spread=1.7,
        towards="diagnosis:AD",
    )


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that shares among test processes; never write into its folders."""
    base = tmp_path_factory.getbasetemp()
    return partial(share, base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def tiny_study(made_once: MadeOnce) -> Path:
    """A finished study: copy it."""
    return made_once("tiny", make_tiny_study)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what needs the tiny study, minutes in the making; the rest fills the gaps."""
    items.sort(key=lambda item: "tiny_study" not in getattr(item, "fixturenames", ()))
