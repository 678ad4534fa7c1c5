"""The atlas of the phantoms and two phantom subjects, made once for all test processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.phantom import cohort
from pipeline.phantom.atlas import Atlas, build_atlas, open_atlas, write_atlas
from pipeline.phantom.cohort import make_phantom_cohort
from tests.support.made_once import MadeOnce
from tests.support.phantoms import TINY


@pytest.fixture(scope="module")
def atlas(made_once: MadeOnce) -> Iterator[Atlas]:
    """Built once; cohorts made meanwhile take it as well."""
    atlas = open_atlas(made_once("atlas", _written_atlas))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "build_atlas", lambda zooms: {4.0: atlas}[zooms])
        yield atlas


def _written_atlas(folder: Path) -> Path:
    write_atlas(build_atlas(zooms=4.0), folder)
    return folder


@pytest.fixture(scope="module")
def dataset(atlas: Atlas, made_once: MadeOnce) -> Path:
    return made_once("phantoms", lambda root: make_phantom_cohort(root, TINY))
