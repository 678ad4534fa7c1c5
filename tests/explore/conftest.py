"""A study about the tiny models, opened for the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.applications.runner import Opener
from pipeline.explore.directions import study_directions
from pipeline.explore.engine import Engine
from pipeline.explore.study import ExplorePaths, open_study
from pipeline.stores.latents import open_latents
from schemas.params import PreprocessParams
from tests.support.explore_study import make_explore_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory, volumes, latents_path, autoencoder_path, ldae_path, split):
    """A study folder; never write into it."""
    return make_explore_study(
        tmp_path_factory.mktemp("explore") / "my study",
        volumes=volumes.path,
        latents=latents_path,
        ae=autoencoder_path,
        ldae=ldae_path,
        split=split,
    )


@pytest.fixture(scope="session")
def open_engine(models, volumes):
    """Return a function that opens the engine of a study folder, not started."""

    def opened(folder: Path) -> Engine:
        study = open_study(ExplorePaths.of_folder(folder), title=folder.name)

        def load() -> Opener:
            return Opener(
                models=replace(models, batch_size=8),
                latents=open_latents(study.paths.latents),
                volumes=study.volumes,
                preprocess=PreprocessParams(),
            )

        # The tiny models compute in fp32, so that batches do not matter; commands have to as well.
        options = ("--set", "evaluate.precision=fp32")
        directions = study_directions(study, None)
        return Engine(study=study, directions=directions, load=load, options=options)

    return opened


@pytest.fixture(scope="session")
def engine(open_engine, study_folder) -> Engine:
    """The engine of the study, started; tests share what it keeps."""
    started = open_engine(study_folder)
    started.start()
    return started
