"""A cross-fitting of the tiny study in two folds, made once."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohort.manifest import read_manifest
from pipeline.crossfit.run import cross_fit
from pipeline.models.frozen import load_ldae
from pipeline.stores.latents import open_latents
from schemas.params import CrossfitParams, Params
from tests.support.tiny_models import CPU, LDAE, LDM
from tests.support.volumes import write_manifest_of


@pytest.fixture(scope="session")
def params() -> Params:
    """Parameters of the models in `trained`, few steps, two folds."""
    few = {"steps": 2, "checkpoint_every": 2}
    return Params(
        train_ldm=LDM.model_copy(update=few),
        train_ldae=LDAE.model_copy(update=few),
        crossfit=CrossfitParams(folds=2),
    )


@pytest.fixture(scope="session")
def manifest(tmp_path_factory, split) -> pd.DataFrame:
    """Twenty scans; two of the test split are of one person."""
    return read_manifest(write_manifest_of(tmp_path_factory.mktemp("manifest"), split))


@pytest.fixture(scope="session")
def crossfit(tmp_path_factory, latents_path, ldae_path, manifest, params) -> Path:
    """Return the folder of a finished cross-fitting; never write into it."""
    out = tmp_path_factory.mktemp("crossfit") / "crossfit"
    reference = load_ldae(ldae_path, device=CPU)
    cross_fit(open_latents(latents_path), manifest, reference, params, out, device=CPU)
    return out
