"""The LDAE inside the package: export, choice of one, adoption into a study, new scans."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pipeline.models.bundled as bundled
import pipeline.models.bundled_ldae as bundled_ldae
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import encoders_copies, load_diffusion, load_ldae
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError, ParamsError
from stages.cli import app
from stages.params_file import load_params
from tests.support.smaller_grid import make_smaller_latents, make_smaller_volumes
from tests.support.tiny_models import CPU
from tests.support.volumes import subjects


@pytest.fixture
def inside(tmp_path, monkeypatch, autoencoder_path, ldae_path):
    """A package that carries a tiny autoencoder and a tiny LDAE, and an empty working folder."""
    ae, folder = tmp_path / "package" / "ae", tmp_path / "package" / "ldae"
    shutil.copytree(autoencoder_path, ae)
    config = json.loads((ae / "config.json").read_text())
    (ae / "config.json").write_text(json.dumps(config | {"portable": True}))
    bundled_ldae.export_bundled_ldae(ldae_path, folder, card="# Card\n")
    monkeypatch.setattr(bundled, "BUNDLED", ae)
    monkeypatch.setattr(bundled_ldae, "BUNDLED_LDAE", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def small(tmp_path, autoencoder_path):
    """Latents of a study on a smaller grid."""
    volumes = make_smaller_volumes(tmp_path / "volumes.zarr", subjects(5))
    return make_smaller_latents(tmp_path / "latents.zarr", volumes, autoencoder_path)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def y_sem(path):
    return OpenStore(path, kind="semantics").read("y_sem")


@pytest.mark.slow
def test_weights_are_halved_and_statistics_stay_as_they_were(inside, ldae_path):
    half, full = read_artefact(inside, kind="ldae"), read_artefact(ldae_path, kind="ldae")
    twice = encoders_copies(full.tensors)
    assert {"estimator.centre", "estimator.spread", "estimator.modes.modes"} <= twice
    assert half.tensors.keys() == full.tensors.keys() - twice
    for name in half.tensors:
        tensor = full.tensors[name]
        statistic = any(
            part in name
            for part in ("standardise", "centre", "spread", "size", "reliability", "gain", "trust")
        )
        assert half.tensors[name].dtype == (tensor.dtype if statistic else torch.float16), name
        assert torch.equal(half.tensors[name], tensor if statistic else tensor.half()), name
    net = load_ldae(inside, device=torch.device("cpu")).net
    assert torch.equal(net.encoder.modes.modes, net.estimator.modes.modes)
    assert torch.equal(net.encoder.centre, net.estimator.centre)
    assert half.config["float32_sha256"] == full.digest
    assert (inside / "README.md").read_text() == "# Card\n"


@pytest.mark.slow
def test_export_is_a_command_and_takes_the_card_of_training(inside, ldae_path, tmp_path):
    result = run("export-ldae", "--ldae", ldae_path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    digest = read_artefact(inside, kind="ldae").digest
    assert read_artefact(tmp_path / "out", kind="ldae").digest == digest
    assert (tmp_path / "out/README.md").read_bytes() == (ldae_path / "README.md").read_bytes()


@pytest.mark.slow
def test_too_large_and_overflowing_weights_are_not_bundled(tmp_path, monkeypatch, ldae_path):
    artefact = read_artefact(ldae_path, kind="ldae")
    name = "diffusion.denoiser.encoder.stem.weight"
    artefact.tensors[name] = artefact.tensors[name] + 1e6
    monkeypatch.setattr(bundled_ldae, "read_artefact", lambda *_, **__: artefact)
    with pytest.raises(ContractError, match=r"stem\.weight: not finite in float16"):
        bundled_ldae.export_bundled_ldae(ldae_path, tmp_path / "overflow")
    monkeypatch.undo()
    monkeypatch.setattr(bundled_ldae, "MAX_BUNDLED_BYTES", 1000)
    with pytest.raises(ContractError, match="expected at most"):
        bundled_ldae.export_bundled_ldae(ldae_path, tmp_path / "large")


@pytest.mark.slow
def test_embed_says_which_ldae_it_uses(inside, latents_path, ldae_path, tmp_path):
    def embed(out, *more):
        return run("embed", "--latents", latents_path, "--out", out, "--device", "cpu", *more)

    first = embed("a.zarr")
    assert "LDAE: the one bundled with the package" in first.output, first.exception
    shutil.copytree(ldae_path, tmp_path / "models" / "ldae")
    assert "LDAE: models/ldae, of this study" in embed("b.zarr").output
    assert f"LDAE: {inside}" in embed("c.zarr", "--ldae", inside).output
    a, b, c = (y_sem(tmp_path / f"{name}.zarr") for name in "abc")
    assert np.array_equal(a, c)
    assert 0 < np.abs(a - b).max() < 0.05


@pytest.mark.slow
def test_without_any_ldae_the_remedy_is_named(tmp_path, monkeypatch, latents_path):
    monkeypatch.setattr(bundled_ldae, "BUNDLED_LDAE", tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    result = run("embed", "--latents", latents_path, "--out", "a.zarr")
    assert isinstance(result.exception, ContractError)
    assert "pipeline train-ldae" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["reconstruct", "--scan", "sub-003"],
        ["vary", "--scan", "sub-003", "--count", 1],
        ["interpolate", "--a", "sub-003", "--b", "sub-004", "--alpha", 0.5],
        ["generate", "--count", 1],
    ],
    ids=lambda words: words[0],
)
def test_applications_work_without_any_training(inside, small, command):
    latents = [] if command[0] == "generate" else ["--latents", small.path]
    result = run(*command, *latents, "--out", "made", "--steps", 2, "--device", "cpu")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "LDAE: the one bundled with the package" in result.output


@pytest.mark.slow
def test_a_study_takes_the_bundled_one_byte_for_byte_and_its_stage_1(inside, small, tmp_path):
    source = ["--set", "train_ldae.source=bundled", "--latents", small.path]
    first = run("train-ldm", *source, "--out", "models/ldm")
    second = run("train-ldae", *source, "--ldm", "models/ldm", "--out", "models/ldae")
    for result in (first, second):
        assert result.exit_code == 0, (result.output, result.exception)
        assert "nothing was trained" in result.output
    ldae = tmp_path / "models" / "ldae"
    for name in ("model.safetensors", "README.md"):
        assert (ldae / name).read_bytes() == (inside / name).read_bytes()
    assert json.loads((ldae / "metrics.json").read_text())["loss"]
    whole = load_ldae(inside, device=CPU)
    part = load_diffusion(tmp_path / "models" / "ldm", device=CPU)
    for name, tensor in part.diffusion.state_dict().items():
        assert torch.equal(tensor, whole.net.diffusion.state_dict()[name]), name
    assert part.config["taken_from"] == whole.digest
    assert part.config["grid"]["shape"] == [8, 16, 12]
    for name in ("metrics.json", "log.csv", "README.md"):
        assert (tmp_path / "models" / "ldm" / name).is_file()
    embedded = run("embed", "--latents", small.path, "--out", "y.zarr", "--device", "cpu")
    assert "LDAE: models/ldae, of this study" in embedded.output, embedded.exception


@pytest.mark.slow
def test_a_study_takes_the_ldae_of_a_folder(inside, latents_path, ldae_path, tmp_path):
    chosen = ["--set", "train_ldae.source=path", "--set", f"train_ldae.path={ldae_path}"]
    result = run("train-ldae", "--latents", latents_path, "--out", "ldae", *chosen)
    assert result.exit_code == 0, (result.output, result.exception)
    made, source = (read_artefact(p, kind="ldae") for p in (tmp_path / "ldae", ldae_path))
    assert made.digest == source.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("train-ldm", "train_ldm.lr=0.1"),
        ("train-ldae", "train_ldm.lr=0.1"),
        ("train-ldae", "train_ldae.steps=5"),
    ],
)
def test_parameters_of_a_training_that_is_not_done_are_refused(inside, command, key):
    result = run(
        command, "--latents", "l.zarr", "--out", "m", "--set", "train_ldae.source=bundled",
        "--set", key,
    )  # fmt: skip
    assert isinstance(result.exception, ParamsError)
    assert "so nothing is trained; add --set train_ldae.source=train" in str(result.exception)


def test_source_path_and_start_go_together():
    for wrong in (["train_ldae.source=path"], ["train_ldae.path=somewhere"]):
        with pytest.raises(ParamsError, match=r"train_ldae\.path goes with"):
            load_params(None, wrong)
    both = ["train_ldae.source=bundled", "train_ldae.start_from=bundled"]
    with pytest.raises(ParamsError, match=r"goes with train_ldae\.source: train"):
        load_params(None, both)


@pytest.mark.slow
def test_an_ldae_of_another_autoencoder_is_not_taken(inside, latents_path, tmp_path):
    config = json.loads((inside / "config.json").read_text())
    (inside / "config.json").write_text(json.dumps(config | {"autoencoder_digest": "another"}))
    source = ["--set", "train_ldae.source=bundled", "--latents", latents_path]
    for command in ("train-ldm", "train-ldae"):
        result = run(command, *source, "--out", tmp_path / "m")
        assert "encoded by another autoencoder than the LDAE of" in str(result.exception)
    used = run("generate", "--out", "made", "--count", 1)
    assert "give that one as --ae" in str(used.exception)
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_stage_2_alone_does_not_start_on_a_stage_1_from_nothing(inside, latents_path):
    result = run(
        "train-ldae", "--latents", latents_path, "--out", "m",
        "--set", "train_ldae.start_from=bundled", "--set", "train_ldm.start_from=null",
    )  # fmt: skip
    assert isinstance(result.exception, ParamsError)
    assert "set train_ldm.start_from to the same" in str(result.exception)


SIZES = {
    "train_ldm.denoiser": "{base_channels: 8, attention_levels: [1], multipliers: [1, 2]}",
    "train_ldae.encoder": "{channels: [8, 16], dim: 12, num_heads: 2, tissue_modes: 0}",
    "train_ldm.steps": 2,
    "train_ldae.steps": 2,
}


def trained_starts(small, tmp_path, **changes: object) -> list[str | None]:
    """Train both stages by one command; return the digests of what they started from."""
    asked = [word for kv in (SIZES | changes).items() for word in ("--set", f"{kv[0]}={kv[1]}")]
    result = run("train-ldae", "--latents", small.path, "--out", "models/ldae", *asked)
    assert result.exit_code == 0, (result.output, result.exception)
    made = {"ldm": tmp_path / "models" / "ldae-ldm", "ldae": tmp_path / "models" / "ldae"}
    return [read_artefact(path, kind=kind).config["started_from"] for kind, path in made.items()]


@pytest.mark.slow
@pytest.mark.parametrize("named", ["bundled", "auto"])
def test_both_stages_start_from_the_bundled_one_by_one_command(inside, small, tmp_path, named):
    both = {"train_ldm.start_from": named, "train_ldae.start_from": named}
    digest = read_artefact(inside, kind="ldae").digest
    assert trained_starts(small, tmp_path, **both) == [digest, digest]


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["latents", "sizes", "no bundled one", "null"])
def test_where_the_bundled_one_does_not_fit_training_starts_from_nothing(
    inside, small, tmp_path, changed
):
    changes: dict[str, object] = {}
    if changed == "latents":
        config = json.loads((inside / "config.json").read_text())
        (inside / "config.json").write_text(json.dumps(config | {"autoencoder_digest": "another"}))
    elif changed == "no bundled one":
        shutil.rmtree(inside)
    elif changed == "sizes":
        changes = {"train_ldm.denoiser.base_channels": 16}
    else:
        changes = {"train_ldm.start_from": "null"}
    assert trained_starts(small, tmp_path, **changes) == [None, None]


@pytest.mark.slow
def test_embed_takes_one_kind_of_input(inside, latents_path):
    for wrong, told in (
        ([], "give --latents STORE, or --input IMAGES"),
        (["--latents", latents_path, "--input", "nifti"], "one of the two"),
        (["--latents", latents_path, "--replace"], "go with --input"),
        (["--input", "nifti", "--volumes", "v.zarr"], "--volumes goes with --latents"),
    ):
        result = run("embed", "--out", "y.zarr", *wrong)
        assert isinstance(result.exception, ParamsError)
        assert told in str(result.exception)
    encoded = run(
        "embed", "--latents", latents_path, "--out", "y.zarr", "--set", "encode.batch_size=2"
    )
    assert "is encoded already; leave it out" in str(encoded.exception)


@pytest.mark.slow
def test_volumes_of_a_smaller_grid_are_encoded_and_embedded(inside, small, tmp_path):
    """By one command, with the latents kept for the next."""
    command = ("embed", "--input", tmp_path / "volumes.zarr", "--out", "y.zarr", "--device", "cpu")
    result = run(*command, "--set", "encode.precision=fp32")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "autoencoder: the one for 3 mm bundled with the package" in result.output
    kept = open_latents(tmp_path / "y.input" / "latents.zarr")
    means = (store.read("posterior_mean", slice(None)) for store in (kept, small))
    assert np.array_equal(*means)
    other = run("embed", "--latents", small.path, "--out", "z.zarr", "--device", "cpu")
    assert other.exit_code == 0, (other.output, other.exception)
    np.testing.assert_allclose(y_sem(tmp_path / "y.zarr"), y_sem(tmp_path / "z.zarr"), atol=1e-5)
    again = run(*command, "--set", "encode.precision=fp32")
    assert "0 encoded now, 5 from before" in again.output
