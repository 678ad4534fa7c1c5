from pathlib import Path

import pytest

from pipeline.bids_export.export import export_bids
from tests.support.export_study import files_of, make_study, write_counterfactuals


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset, counterfactuals included; never write into it."""
    root = tmp_path_factory.mktemp("exported")
    study = make_study(root)
    made = write_counterfactuals(root / "made")
    out = root / "bids" / "derivatives" / "ldae"
    export_bids(files_of(study), out, counterfactuals=[made])
    return out
