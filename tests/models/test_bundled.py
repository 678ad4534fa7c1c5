"""The autoencoder inside the package: float16, strict, on other grids, in a study."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pipeline.models.bundled as bundled
from pipeline.imaging.atlas.mni152 import load_template
from pipeline.models.artefact import read_artefact
from pipeline.models.conversion.monai_export import export_monai_bundle
from pipeline.models.frozen import load_autoencoder, on_grid
from pipeline.stores.latents import open_latents
from schemas.errors import ContractError, ParamsError
from schemas.grid import Grid, GridParams
from stages.cli import app
from stages.params_file import load_params
from tests.support.volumes import SHAPE

CPU = torch.device("cpu")
BUNDLED = bundled.BUNDLED


@pytest.fixture
def inside(tmp_path, monkeypatch, autoencoder_path):
    """A package that carries a tiny autoencoder, and an empty working folder."""
    folder = tmp_path / "package" / "ae"
    bundled.export_bundled(autoencoder_path, folder, card="# Card\n")
    monkeypatch.setattr(bundled, "BUNDLED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def test_float16_weights_load_as_float32_and_differ_by_rounding_alone(inside, autoencoder_path):
    half, full = read_artefact(inside, kind="ae"), read_artefact(autoencoder_path, kind="ae")
    assert {t.dtype for t in half.tensors.values()} == {torch.float16}
    net = load_autoencoder(inside, device=CPU).net
    for name, value in net.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, full.tensors[name].half().float()), name
    assert half.config["float32_sha256"] == full.digest


def test_a_flipped_bit_in_the_bundled_weights_is_refused(inside):
    weights = inside / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 4
    weights.write_bytes(data)
    with pytest.raises(ContractError, match="damaged, its sha256 differs"):
        load_autoencoder(inside, device=CPU)


def test_too_large_and_overflowing_weights_are_not_bundled(tmp_path, monkeypatch, autoencoder_path):
    monkeypatch.setattr(bundled, "MAX_BUNDLED_BYTES", 1000)
    with pytest.raises(ContractError, match="expected at most"):
        bundled.export_bundled(autoencoder_path, tmp_path / "large")
    artefact = read_artefact(autoencoder_path, kind="ae")
    name, tensor = next(iter(artefact.tensors.items()))
    artefact.tensors[name] = tensor + 1e6
    monkeypatch.setattr(bundled, "read_artefact", lambda *_, **__: artefact)
    with pytest.raises(ContractError, match="not finite in float16"):
        bundled.export_bundled(autoencoder_path, tmp_path / "overflow")
    assert not (tmp_path / "overflow").exists()


def test_encode_without_ae_says_which_it_uses(inside, volumes, autoencoder_path, tmp_path):
    first = run("encode", "--input", volumes.path, "--out", "a.zarr", "--device", "cpu")
    assert first.exit_code == 0, first.output
    assert "autoencoder: the one for 3 mm bundled with the package" in first.output
    shutil.copytree(autoencoder_path, tmp_path / "models" / "ae")
    second = run("encode", "--input", volumes.path, "--out", "b.zarr", "--device", "cpu")
    assert "autoencoder: models/ae, of this study" in second.output
    a, b = (open_latents(tmp_path / f"{name}.zarr") for name in "ab")
    assert a.attributes.digests["autoencoder"] == read_artefact(inside, kind="ae").digest
    means = [store.read("posterior_mean", slice(None)).astype(np.float32) for store in (a, b)]
    assert np.abs(means[0] - means[1]).max() < 0.03 * np.abs(means[1]).max()
    assert not np.array_equal(*means)


def test_without_any_autoencoder_the_remedy_is_named(tmp_path, monkeypatch, volumes):
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    result = run("encode", "--input", volumes.path, "--out", "a.zarr")
    assert isinstance(result.exception, ContractError)
    assert "pipeline train-ae" in str(result.exception)


def test_the_stage_takes_the_bundled_one_onto_the_grid_of_the_study(inside, volumes, tmp_path):
    config = json.loads((inside / "config.json").read_text())
    other = np.diag([2.0, 2, 2, 1]).tolist()
    (inside / "config.json").write_text(
        json.dumps(config | {"grid": {"shape": [32, 32, 32], "affine": other}})
    )
    stage = (
        "train-ae",
        "--manifest",
        "unused.csv",
        "--volumes",
        volumes.path,
        "--out",
        "models/ae",
    )
    result = run(*stage, "--set", "autoencoder.source=bundled")
    assert result.exit_code == 0, result.output
    assert "nothing was trained" in result.output
    assert "trained on voxels of 2×2×2 mm, used on 3×3×3 mm" in result.output
    frozen = load_autoencoder(tmp_path / "models" / "ae", device=CPU)
    assert frozen.digest == read_artefact(inside, kind="ae").digest
    assert frozen.grid.shape == SHAPE
    assert frozen.config["trained_grid"]["shape"] == [32, 32, 32]
    for name in ("README.md", "metrics.json", "log.csv"):
        assert (tmp_path / "models" / "ae" / name).is_file()
    encoded = run("encode", "--input", volumes.path, "--out", "l.zarr", "--device", "cpu")
    assert encoded.exit_code == 0, encoded.output


def test_repair_takes_the_bundled_one_onto_the_grid_of_the_volumes(inside, volumes, tmp_path):
    config = json.loads((inside / "config.json").read_text())
    other = {"shape": [32, 32, 32], "affine": np.diag([2.0, 2, 2, 1]).tolist()}
    (inside / "config.json").write_text(json.dumps(config | {"grid": other}))
    encoded = run("encode", "--input", volumes.path, "--out", "l.zarr", "--device", "cpu")
    assert encoded.exit_code == 0, encoded.output
    chunk = tmp_path / "l.zarr" / "posterior_mean/c/0/0/0/0/0"
    good = chunk.read_bytes()
    chunk.unlink()
    repaired = run("verify", "l.zarr", "--repair", "--volumes", volumes.path, "--device", "cpu")
    assert repaired.exit_code == 0, (repaired.output, repaired.exception)
    assert chunk.read_bytes() == good


@pytest.mark.parametrize("place", ["l.input/volumes.zarr", "volumes.zarr"])
def test_repair_finds_the_volumes_where_commands_leave_them(inside, volumes, tmp_path, place):
    encoded = run("encode", "--input", volumes.path, "--out", "l.zarr", "--device", "cpu")
    assert encoded.exit_code == 0, encoded.output
    chunk = tmp_path / "l.zarr" / "posterior_mean/c/0/0/0/0/0"
    good = chunk.read_bytes()
    chunk.unlink()
    lost = run("verify", "l.zarr", "--repair", "--device", "cpu")
    assert isinstance(lost.exception, ParamsError)
    assert "--volumes" in str(lost.exception)
    shutil.copytree(volumes.path, tmp_path / place)
    repaired = run("verify", "l.zarr", "--repair", "--device", "cpu")
    assert repaired.exit_code == 0, (repaired.output, repaired.exception)
    assert chunk.read_bytes() == good


def test_a_grid_that_the_bundled_one_cannot_take_is_refused(inside, tmp_path):
    grid = Grid.model_validate({"shape": [17, 24, 20], "affine": np.eye(4).tolist()})
    with pytest.raises(ContractError, match=r"multiple of 4; set preprocess\.grid\.shape"):
        bundled.adopt_autoencoder(inside, tmp_path / "models" / "ae", grid=grid)


def test_source_and_path_go_together(autoencoder_path, volumes, tmp_path, monkeypatch):
    for wrong in (["autoencoder.source=path"], ["autoencoder.path=somewhere"]):
        with pytest.raises(ParamsError, match=r"autoencoder\.path goes with"):
            load_params(None, wrong)
    monkeypatch.chdir(tmp_path)
    result = run(
        "train-ae", "--manifest", "unused.csv", "--volumes", volumes.path, "--out", "ae",
        "--set", "autoencoder.source=path", "--set", f"autoencoder.path={autoencoder_path}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (
        read_artefact(tmp_path / "ae", kind="ae").digest
        == read_artefact(autoencoder_path, kind="ae").digest
    )


def test_a_monai_bundle_is_taken_in_by_its_path(autoencoder_path, volumes, tmp_path, monkeypatch):
    export_monai_bundle(autoencoder_path, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    result = run(
        "train-ae", "--manifest", "unused.csv", "--volumes", volumes.path, "--out", "ae",
        "--set", "autoencoder.source=path", "--set", "autoencoder.path=bundle",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    taken, own = (load_autoencoder(p, device=CPU) for p in (tmp_path / "ae", autoencoder_path))
    torch.testing.assert_close(taken.net.state_dict(), own.net.state_dict(), atol=0, rtol=0)
    assert sorted(f.name for f in tmp_path.iterdir() if "import" in f.name) == []


@pytest.mark.slow
def test_a_brain_comes_back_from_a_smaller_box_as_from_the_one_trained_on():
    net = load_autoencoder(BUNDLED, device=CPU).net
    template, brain = load_template(GridParams(shape=(64, 80, 64), zooms=3.0))
    whole = torch.from_numpy(template * brain)[None, None]
    part = (..., slice(4, -4), slice(8, -8), slice(4, -4))
    assert whole[part].sum() == whole.sum()

    def there_and_back(volume):
        with torch.inference_mode():
            return net.decode(net.encode(volume)[0])

    def difference():
        return (there_and_back(whole[part]) - expected)[whole[part] > 0].abs().mean()

    expected = there_and_back(whole)[part]
    assert difference() < 0.005
    net.box = None
    assert difference() > 0.05


def test_the_box_is_that_of_the_voxels_trained_on_and_goes_with_the_study(inside, tmp_path):
    trained = load_autoencoder(inside, device=CPU)
    half = np.array(trained.grid.affine) / 2
    assert (
        on_grid(trained, trained.grid.model_copy(update={"affine": half.tolist()})).net.box is None
    )
    smaller = trained.grid.model_copy(update={"shape": tuple(n - 8 for n in SHAPE)})
    bundled.adopt_autoencoder(inside, tmp_path / "ae", grid=smaller)
    assert load_autoencoder(tmp_path / "ae", device=CPU).net.box == tuple(SHAPE)


def test_a_smaller_volume_goes_through_as_if_amid_air(inside):
    net = load_autoencoder(inside, device=CPU).net
    few = net.factor
    whole = torch.zeros(1, 1, *SHAPE)
    part = (..., *(slice(few * (n // few // 3), n - few * (n // few // 3)) for n in SHAPE))
    whole[part] = torch.rand(whole[part].shape)
    for one, other in zip(net.encode(whole[part]), net.encode(whole), strict=True):
        inner = (..., *(slice(n // few // 3, n // few - n // few // 3) for n in SHAPE))
        torch.testing.assert_close(one, other[inner])
    assert net.decode(one).shape == whole[part].shape


@pytest.mark.parametrize(
    ("zooms", "folder"),
    [(3.0, "ae"), (2.5, "ae"), (2.0, "ae-1.5mm"), (1.5, "ae-1.5mm"), (1.0, "ae-1.5mm")],
)
def test_the_bundled_autoencoder_of_the_nearer_voxel_size_is_taken(zooms, folder):
    chosen = bundled.bundled_autoencoder(zooms)
    assert chosen.name == folder
    assert chosen.name == bundled.find_autoencoder(None, zooms=zooms)[0].name
    own = load_autoencoder(chosen, device=CPU).grid.zooms[0]
    assert own == (3.0 if folder == "ae" else 1.5)


def test_a_grid_that_the_fine_one_cannot_halve_thrice_gets_the_coarse_one():
    assert bundled.bundled_autoencoder(1.5, (128, 160, 128)).name == "ae-1.5mm"
    assert bundled.bundled_autoencoder(1.5, (128, 156, 128)).name == "ae"


def test_a_factor_names_the_bundled_autoencoder_whatever_the_voxels():
    assert bundled.bundled_autoencoder(1.5, (128, 160, 128), factor=4).name == "ae"
    assert bundled.bundled_autoencoder(3.0, factor=8).name == "ae-1.5mm"
    start = bundled.load_start("bundled", zooms=1.5, factor=4)
    assert start.digest == load_autoencoder(bundled.BUNDLED, device=CPU, at_use=True).digest


def test_both_bundled_autoencoders_give_latents_of_one_shape():
    coarse, fine = (
        load_autoencoder(bundled.bundled_autoencoder(zooms), device=CPU) for zooms in (3.0, 1.5)
    )
    assert coarse.net.latent_shape(coarse.grid.shape) == fine.net.latent_shape(fine.grid.shape)


@pytest.mark.slow
def test_the_fine_autoencoder_shows_what_the_coarse_one_cannot(tmp_path):
    """The template at 1.5 mm, through each; cubic splines bring the coarse one's to 1.5 mm."""
    from benchmarks.studies.autoencoder_resolutions import reconstructions

    fine, coarse = (
        load_autoencoder(bundled.bundled_autoencoder(zooms), device=CPU) for zooms in (1.5, 3.0)
    )
    data = load_template(GridParams(shape=fine.grid.shape, zooms=1.5))[0]
    volume = torch.from_numpy(np.clip(data / np.percentile(data[data > 0], 99.5), 0, 1))
    made = reconstructions(volume.float()[None, None], fine, coarse, on_grid(coarse, fine.grid))
    inside = torch.from_numpy(data > 0)[None, None]
    error = {name: float((made[name] - volume)[inside].abs().mean()) for name in made}
    assert error["fine"] < 0.95 * error["coarse"]


MEASURE = """
import resource, torch
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder
net = load_autoencoder(bundled_autoencoder(1.5), device=torch.device("cpu")).net
with torch.inference_mode():
    net.decode(net.encode(torch.rand(1, 1, 128, 160, 128))[0])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_volume_of_research_resolution_takes_little_memory():
    """Encoded and decoded whole, so that no boxes are needed, and no seams can be."""
    made = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, check=True)
    assert int(made.stdout) < 1.5e6, "KiB, with what torch itself takes"
