"""`pipeline forecast`: what it writes, and what it refuses in one line."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from pipeline.encoding.embed import embed_latents
from pipeline.models.direction import write_directions
from pipeline.models.frozen import load_ldae
from pipeline.models.model_folder import CONFIG
from pipeline.regions.cases import made_cases, read_made
from pipeline.stores.latents import open_latents
from schemas.params import EmbedParams
from stages.cli import app
from tests.support.repeated_visits import write_repeated
from tests.support.tiny_models import CPU

FIRST, SECOND = "sub-015", "sub-016"


@pytest.fixture(scope="module")
def semantics(tmp_path_factory, latents_path, ldae_path):
    path = tmp_path_factory.mktemp("semantics") / "semantics.zarr"
    model = load_ldae(ldae_path, device=CPU)
    embed_latents(open_latents(latents_path), model, path, EmbedParams(), device=CPU)
    return path


@pytest.fixture
def invoke(tmp_path, autoencoder_path, ldae_path, latents_path, volumes, split, semantics):
    def run(*arguments, twice=True):
        manifest = write_repeated(tmp_path, split, twice=twice)
        models = ["--ae", str(autoencoder_path), "--ldae", str(ldae_path), "--steps", "2"]
        stores = ["--latents", str(latents_path), "--volumes", str(volumes.path)]
        people = ["--semantics", str(semantics), "--manifest", str(manifest)]
        words = ["forecast", *arguments, *models, *stores, *people, "--draws", "4"]
        return CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])

    return run


@pytest.mark.slow
def test_a_forecast_tells_its_doubts(tmp_path, invoke, ldae_path, direction):
    """Beyond what was seen, and along a direction whose probe does not beat chance."""
    digest = json.loads((ldae_path / CONFIG).read_text())["weights_sha256"]
    directions = tmp_path / "directions.json"
    write_directions(directions, {"diagnosis": direction}, digests={"ldae": digest})
    size = {"scans": 20, "subjects": 20}
    auc = {"value": 0.6, "low": 0.4, "high": 0.8, "subjects": 40, "interval_method": "score"}
    about = {
        "kind": "classification", "negative": "CN", "positive": "AD",
        "test": {"judged_on": {"all": size, "CN": size, "AD": size},
                 "permutation": {"p": 0.4, "permutations": 100}},
    }  # fmt: skip
    metrics = {"test": {"diagnosis": {"y_sem": {"roc_auc": auc}}}, "targets": {"diagnosis": about}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    along = ["--direction", "diagnosis:AD", "--directions", str(directions)]
    result = invoke("--subject", FIRST, "--months", "6,24", *along)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "learned from 7 people" in result.output
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text())
    assert record["visits"] == [FIRST, SECOND, "sub-017"]
    assert any("not shown to beat chance" in line for line in record["remarks"])
    assert any("24 months" in line for line in record["remarks"])
    assert [one["months"] for one in record["forecasts"]] == [6, 24]
    assert record["interval"].startswith("90 %, of a new scan")
    near, far = (one["volumes_ml"]["lateral ventricles"] for one in record["forecasts"])
    assert 0 <= near["low"] <= near["mean"] <= near["high"]
    assert far["high"] - far["mean"] >= near["high"] - near["mean"]
    kinds = {one["kind"] for one in record["outputs"]}
    assert kinds == {"last visit", "mean", "std", "low", "high"}
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 9
    grid, documents = read_made(tmp_path / "out", None)
    (case,) = made_cases(tmp_path / "out", documents, None)
    assert list(case.after) == ["months after 6", "months after 24"]
    assert case.before.shape == grid.shape
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--months", "6"], "give visits as --scan"),
        (["--scan", FIRST, "--input", "a.nii.gz", "--months", "6"], "give visits as --scan"),
        (["--input", "README.md", "--months", "6"], "expected an image file"),
        (["--scan", FIRST, "--months", "0"], "--months 0: months after the last visit"),
        (["--scan", FIRST, "--months", "6", "--slope", "own"], "one visit given, two are needed"),
        (["--scan", SECOND, "--scan", FIRST, "--months", "6"], "give visits in order"),
        (["--subject", "sub-x", "--months", "6"], "no dated scan of sub-x"),
    ],
)
def test_mistakes_are_one_line(tmp_path, invoke, arguments, told):
    result = invoke(*arguments)
    assert told in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_people_seen_twice_there_is_no_forecast(tmp_path, invoke):
    result = invoke("--scan", FIRST, "--months", "6", twice=False)
    assert "nobody has two visits at different months" in str(result.exception)
    assert not (tmp_path / "out").exists()
