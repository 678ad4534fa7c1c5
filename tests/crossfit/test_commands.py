"""Commands that write and read out-of-fold codes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.applications.generate import generate, prior_of
from pipeline.encoding.embed import embed_latents
from pipeline.models.frozen import load_ldae
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.out_of_fold import read_out_of_fold
from pipeline.stores.provenance import check_same_latents
from pipeline.study.study import Study
from schemas.errors import ContractError, ParamsError
from schemas.evaluation import EvaluateParams, ProbeParams
from schemas.params import EmbedParams
from stages.cli import app
from tests.support.tiny_models import CPU

QUICK = (
    "bootstrap=10",
    "permutations=0",
    "heads=[]",
    "classification={}",
    "regression=[age_years]",
)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, manifest) -> Path:
    """The manifest with ages."""
    path = tmp_path_factory.mktemp("labelled") / "manifest.csv"
    ages = 60 + 1.5 * np.arange(len(manifest))
    manifest.assign(age_years=np.random.default_rng(0).permutation(ages)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def semantics(tmp_path_factory, latents_path, ldae_path) -> Path:
    out = tmp_path_factory.mktemp("semantics") / "semantics.zarr"
    ldae = load_ldae(ldae_path, device=CPU)
    embed_latents(open_latents(latents_path), ldae, out, EmbedParams(), device=CPU)
    return out


def probe(labelled, semantics, crossfit, latents, ldae, out):
    parameters = [f"--set=probe.{parameter}" for parameter in QUICK]
    paths = ["--manifest", labelled, "--semantics", semantics, "--latents", latents]
    paths += ["--ldae", ldae, "--crossfit", crossfit / "semantics.zarr", "--out", out]
    return run("probe", *paths, "--device", "cpu", *parameters)


@pytest.mark.slow
def test_probe_judges_everybody_out_of_fold_and_fits_directions_there(
    tmp_path, labelled, semantics, crossfit, latents_path, ldae_path
):
    result = probe(labelled, semantics, crossfit, latents_path, ldae_path, tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "19 subjects of all splits, cross-fitted in 2 folds" in result.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["crossfit"]["folds"] == 2
    figures = metrics["cv"]["age_years"]
    assert {sets["mae"]["subjects"] for sets in figures.values()} == {19}
    assert {"y_sem", "pca_latents", "untrained"} <= figures.keys()
    directions = json.loads((tmp_path / "directions.json").read_text())
    assert "ldae_fold_2" in directions["digests"]
    store, table = OpenStore(crossfit / "semantics.zarr"), pd.read_csv(labelled)
    fitted_on = table["scan_id"][table["split"].isin(["train", "val"])]
    y_sem = store.read("y_sem")[[store.row_of[scan] for scan in fitted_on]]
    mean = directions["directions"]["age_years"]["mean"]
    np.testing.assert_allclose(mean, y_sem.mean(axis=0), atol=1e-4)


@pytest.mark.slow
def test_an_empty_result_counts_as_none(tmp_path, labelled, semantics, latents_path, ldae_path):
    made = run("crossfit", "--latents", "l", "--manifest", "m", "--ldae", "x", "--out", tmp_path)
    assert made.exit_code == 0, made.output
    assert "no cross-fitting (crossfit.folds is 0)" in made.output
    result = probe(labelled, semantics, tmp_path, latents_path, ldae_path, tmp_path / "probe")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "crossfit" not in json.loads((tmp_path / "probe" / "metrics.json").read_text())


@pytest.mark.slow
def test_a_store_without_folds_is_told_from_one_with(tmp_path, semantics, ldae_path):
    digest = load_ldae(ldae_path, device=CPU).digest
    with pytest.raises(ContractError, match=r"has no codes by fold.*goes to --semantics"):
        read_out_of_fold(semantics, ldae=digest)


def test_out_of_fold_codes_are_no_codes_of_embed(crossfit, latents_path):
    codes = OpenStore(crossfit / "semantics.zarr", kind="semantics")
    with pytest.raises(ContractError, match=r"out-of-fold codes .*; give that with --semantics"):
        check_same_latents(codes, open_latents(latents_path))


def test_one_fold_is_refused():
    result = run("crossfit", "--latents", "l", "--manifest", "m", "--ldae", "x", "--out", "o",
                 "--set", "crossfit.folds=1")  # fmt: skip
    assert isinstance(result.exception, ParamsError)
    assert "crossfit.folds: expected 0 (no cross-fitting) or at least 2" in str(result.exception)


@pytest.mark.slow
def test_the_prior_of_new_brains_is_fitted_to_out_of_fold_codes(
    labelled, semantics, crossfit, models, latents_path, volumes
):
    prior = prior_of(crossfit / "semantics.zarr", labelled, models)
    store, table = OpenStore(crossfit / "semantics.zarr"), pd.read_csv(labelled)
    train = list(table["scan_id"][table["split"] == "train"])
    y_sem = store.read("y_sem")[[store.row_of[scan] for scan in train]]
    np.testing.assert_allclose(prior.mean, y_sem.mean(axis=0), atol=1e-5)
    told = generate(models, count=1, seed=0, prior=prior).record["method"]
    assert told.endswith("each embedded by a model that never saw its person")
    assert not prior_of(semantics, labelled, models).out_of_fold
    latents = open_latents(latents_path)
    path = crossfit / "semantics.zarr"
    study = Study(
        models=models,
        volumes=volumes,
        latents=latents,
        manifest=table,
        params=EvaluateParams(),
        probe=ProbeParams(),
        out_of_fold=read_out_of_fold(path, ldae=models.ldae.digest, latents=latents),
    )
    np.testing.assert_array_equal(study.typical_y_sem(train), y_sem)
