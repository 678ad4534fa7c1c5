"""A study from Python gives what the commands give."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import open_study
from pipeline.cohort.manifest import write_manifest
from pipeline.models.direction import write_directions
from pipeline.models.frozen import load_ldae
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError, ParamsError
from schemas.manifest import MANIFEST_COLUMNS
from tests.support.command_line import environment
from tests.support.tiny_models import CPU
from tests.support.volumes import SCAN, subjects

PARAMS = "evaluate:\n  num_inference_steps: 3\n  batch_size: 3\n"


@pytest.fixture
def folder(tmp_path, volumes, latents_path, autoencoder_path, ldae_path, direction) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name, source in (
        ("data/volumes.zarr", volumes.path),
        ("data/latents.zarr", latents_path),
        ("models/ae", autoencoder_path),
        ("models/ldae", ldae_path),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(source)
    table = pd.DataFrame(dict.fromkeys(MANIFEST_COLUMNS, ""), index=range(20))
    table["scan_id"] = table["subject_id"] = subjects(20)
    table["path"], table["source_digest"], table["split"] = "x.nii.gz", "0", "test"
    write_manifest(table, tmp_path / "data" / "cohort" / "manifest.csv")
    digest = load_ldae(ldae_path, device=CPU).digest
    write_directions(
        tmp_path / "reports" / "probe" / "directions.json",
        {"diagnosis": direction},
        digests={"ldae": digest},
    )
    return tmp_path


@pytest.mark.slow
def test_arrays_and_codes_are_those_of_stores_and_models(folder, models, latents_path, volumes):
    study, ids = open_study(folder, device="cpu"), [SCAN, "sub-003"]
    assert list(study.cohort.index) == subjects(20)
    mean = open_latents(latents_path).load(ids).mean.float().numpy()
    np.testing.assert_array_equal(study.latents(ids), mean)
    loaded = open_volumes(volumes.path).load_unit_interval(ids)[:, 0].numpy()
    np.testing.assert_array_equal(study.volumes(ids), loaded)
    np.testing.assert_array_equal(study.volumes(SCAN), loaded[:1])
    assert study.volumes([]).shape == (0, *loaded.shape[1:])
    y_sem = models.embed(models.standardise(open_latents(latents_path).load(ids).mean))
    np.testing.assert_allclose(study.embed(SCAN), y_sem[0].numpy(), atol=1e-5)
    made = study.reconstruct(SCAN)
    moved = study.manipulate(SCAN, "diagnosis:AD", [-2, 0, 2])
    assert made.shape == volumes.attributes.grid.shape
    np.testing.assert_allclose(moved[1], made, atol=1e-5)
    assert not np.allclose(moved[0], moved[2])


@pytest.mark.slow
def test_a_study_without_directions_takes_none_of_the_working_folder(
    folder, tmp_path_factory, monkeypatch
):
    here = tmp_path_factory.mktemp("another-study")
    (here / "reports").mkdir()
    (folder / "reports" / "probe").rename(here / "reports" / "probe")
    monkeypatch.chdir(here)
    with pytest.raises(ContractError, match=f"{folder}/reports/probe/directions.json"):
        open_study(folder, device="cpu").manipulate(SCAN, "diagnosis:AD", [0])


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ContractError, match=r"expected a study .params.yaml in it."):
        open_study(tmp_path)
    (tmp_path / "params.yaml").write_text("preprocess: {grid: 3}")
    study = open_study(tmp_path)
    with pytest.raises(ParamsError, match=r"params.yaml: cannot be read"):
        _ = study.params
    for part in ("cohort", "quality", "semantics", "latent_store", "volume_store"):
        with pytest.raises(ContractError):
            getattr(study, part)


def test_the_package_and_a_study_are_light_to_import():
    code = (
        "import sys, pipeline; assert not {'pandas', 'zarr', 'torch'} & set(sys.modules);"
        "pipeline.open_study; assert 'torch' not in sys.modules, 'torch'; print('light')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "light", result.stderr
