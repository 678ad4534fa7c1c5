"""The applications on tiny models: what each keeps, what it changes, and what it refuses."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from typer.testing import CliRunner

import pipeline.stores.volumes as volume_module
import pipeline.training.latent_diffusion as training
from pipeline.applications.generate import NewBrains, fit_prior, generate, prior_of
from pipeline.applications.generated_volumes import numbered
from pipeline.applications.inputs import (
    NativeSpace,
    check_latents,
    identity_of_file,
    preprocessing_for,
    scan_from_file,
    scan_from_store,
)
from pipeline.applications.interpolate import interpolate, slerp
from pipeline.applications.manipulate import manipulate, move
from pipeline.applications.native_space import brain_of, overlay, resolution, to_native
from pipeline.applications.number_ranges import parse_numbers
from pipeline.applications.output_files import Writer
from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.residual import ScanResidual, add_residual
from pipeline.applications.runner import Opener, run_batch, run_pair
from pipeline.applications.scan_names import check_names, stem_of
from pipeline.applications.time_points import InterpolationPoints, alphas_of_months
from pipeline.applications.vary import vary
from pipeline.encoding.embed import check_same_autoencoder, embed_latents
from pipeline.imaging.bias import BiasField
from pipeline.imaging.geometry import resample_masked
from pipeline.imaging.preprocess_scan import scale_intensities
from pipeline.imaging.template import grid_affine, mni_grid
from pipeline.models.artefact import CONFIG, finished_metrics
from pipeline.models.direction import Direction, read_direction, write_directions
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.inference import LdaeInference, load_models
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.provenance import check_same_latents, check_same_scans
from pipeline.stores.volumes import BIAS_GRID
from schemas.errors import ContractError, ParamsError, ScanError
from schemas.evaluation import EvaluateParams
from schemas.grid import GridParams
from schemas.manifest import MANIFEST_COLUMNS
from schemas.params import EmbedParams, PreprocessParams
from stages.cli import app
from tests.conftest import SHAPE, make_volumes, smooth_volume
from tests.test_training import CPU, LDAE, LDM

pytestmark = pytest.mark.slow
"""Networks are trained first."""

DIM = 12
SCAN, OTHER = "sub-016", "sub-017"


@pytest.fixture(scope="module")
def ldae_path(tmp_path_factory, latents_path, split):
    root = tmp_path_factory.mktemp("applied")
    store = open_latents(latents_path)
    training.train_denoiser(store, split, LDM, root / "ldm", device=CPU)
    frozen = load_diffusion(root / "ldm", device=CPU)
    training.train_ldae(store, split, frozen, LDAE, root / "ldae", device=CPU)
    return root / "ldae"


@pytest.fixture(scope="module")
def models(autoencoder_path, ldae_path):
    params = EvaluateParams(num_inference_steps=6, batch_size=3)
    return load_models(autoencoder_path, ldae_path, params, device=CPU)


@pytest.fixture
def opener(models, latents_path, volumes):
    latents = open_latents(latents_path)
    return Opener(models=models, latents=latents, volumes=volumes, preprocess=PreprocessParams())


@pytest.fixture
def source(opener):
    return opener.open(SCAN)


@pytest.fixture
def direction():
    generator = np.random.default_rng(3)
    weight = generator.normal(size=DIM)
    return Direction(
        weight=weight / np.linalg.norm(weight),
        mean=generator.normal(size=DIM),
        std=generator.uniform(0.5, 2, DIM),
        spread=1.7,
        towards="diagnosis:AD",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-3:3:7", (-3, -2, -1, 0, 1, 2, 3)),
        ("0:1:5", (0, 0.25, 0.5, 0.75, 1)),
        ("2.5", (2.5,)),
        ("-1,0,2", (-1, 0, 2)),
        ("3:-3:3", (3, 0, -3)),
        ("1:1:1", (1,)),
    ],
)
def test_numbers_as_typed(text, expected):
    assert parse_numbers(text, option="--scale") == expected


@pytest.mark.parametrize(
    "text", ["", "a:b:c", "0:1", "0:1:2:3", "0:1:0", "0:1:-2", "0:1:2.5", "nan", "0:inf:3", "0:1:1"]
)
def test_wrong_numbers_are_one_line(text):
    with pytest.raises(ParamsError, match=r"--scale") as caught:
        parse_numbers(text, option="--scale")
    assert "\n" not in str(caught.value)


def fine(models):
    return dataclasses.replace(models, num_inference_steps=60)


def round_trip_error(models, source):
    codes = models.infer_codes(source.z_0)
    return float((models.sample(codes.y_sem, codes.x_T) - source.z_0).norm() / source.z_0.norm())


def test_reconstruction_is_the_round_trip_of_a_scan(models, source):
    outcome = reconstruct(models, source.z_0)
    assert outcome.volumes.shape == (1, *SHAPE)
    assert 0 <= outcome.volumes.min() <= outcome.volumes.max() <= 1
    assert round_trip_error(models, source) > 2 * round_trip_error(fine(models), source)
    assert round_trip_error(fine(models), source) < 0.2
    assert set(outcome.record["inversion"]) == {"mean", "std", "kurtosis"}


def test_variations_share_y_sem_and_nothing_else(models, source):
    three = vary(models, source.z_0, name=SCAN, count=3, seed=5)
    assert three.labels == ["vary-1", "vary-2", "vary-3"]
    assert not torch.allclose(three.volumes[0], three.volumes[1], atol=1e-3)
    # The batch of two is cut elsewhere than that of three, so only nearly equal.
    two = vary(models, source.z_0, name=SCAN, count=2, seed=5)
    torch.testing.assert_close(two.volumes, three.volumes[:2], atol=1e-4, rtol=0)
    other_seed = vary(models, source.z_0, name=SCAN, count=1, seed=6)
    assert not torch.allclose(other_seed.volumes[0], three.volumes[0], atol=1e-3)


def test_generation_depends_on_seed_and_number_alone(models):
    assert_close = torch.testing.assert_close
    four = generate(models, count=4, seed=1, prior=None)
    assert_close(
        generate(models, count=1, seed=1, prior=None).volumes, four.volumes[:1], atol=1e-4, rtol=0
    )
    assert "unconditional" in four.record["method"]
    y_sem = np.random.default_rng(0).normal(size=(9, DIM)) * np.arange(1, DIM + 1)
    drawn = generate(models, count=2, seed=1, prior=fit_prior(y_sem))
    assert "fitted to 9 training scans" in drawn.record["method"]


def test_prior_has_the_moments_of_its_scans():
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(3, 3))
    y_sem = generator.normal(size=(4000, 3)) @ mixing + [5, -2, 0]
    prior = fit_prior(y_sem)
    drawn = torch.cat([prior.sample("a", k) for k in range(4000)]).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), [5, -2, 0], atol=0.2)
    np.testing.assert_allclose(np.cov(drawn.T), mixing.T @ mixing, atol=0.4)
    constant = fit_prior(np.column_stack([y_sem, np.ones(4000)]))
    assert np.isfinite(constant.factor).all()


def test_prior_is_fitted_to_training_scans_of_this_model(
    tmp_path, models, latents_path, split, volumes
):
    semantics = tmp_path / "semantics.zarr"
    embed_latents(open_latents(latents_path), models.ldae, semantics, EmbedParams(), device=CPU)
    manifest = write_manifest_of(tmp_path, split)
    assert prior_of(semantics, manifest, models).num_scans == 12
    other = SimpleNamespace(ldae=SimpleNamespace(digest="other"))
    with pytest.raises(ContractError, match="another LDAE"):
        prior_of(semantics, manifest, other)


def write_manifest_of(folder, split, months=lambda i: 6.0 * i):
    rows = [
        dict.fromkeys(MANIFEST_COLUMNS, "x")
        | {"scan_id": scan, "subject_id": scan, "split": name}
        | {"age_years": 70.0, "months_from_first": months(i)}
        for name, scans in split.items()
        for i, scan in enumerate(scans)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["scan_id"] == OTHER, "subject_id"] = SCAN
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_scale_zero_is_the_reconstruction(models, source, direction):
    outcome = manipulate(models, source.z_0, direction, (-2.0, 0.0, 2.0))
    torch.testing.assert_close(
        outcome.volumes[1:2], reconstruct(models, source.z_0).volumes, atol=1e-4, rtol=0
    )
    assert outcome.labels == ["scale-2.00", "scale+0.00", "scale+2.00"]
    assert outcome.details[2]["published_scale"] == pytest.approx(2 * 1.7 / np.sqrt(DIM))


def test_one_scale_is_one_standard_deviation_along_the_direction(direction):
    y_sem = torch.randn(1, DIM, generator=torch.Generator().manual_seed(0))
    moved = move(y_sem, direction, (0.0, 1.0, -2.5)).numpy()
    np.testing.assert_array_equal(moved[0], y_sem[0])
    positions = direction.position(moved)
    np.testing.assert_allclose(positions - positions[0], [0, 1, -2.5], atol=1e-5)
    # As published: n' = n + s sqrt(d) w.
    n, after = ((y - direction.mean) / direction.std for y in (moved[0], moved[1]))
    expected = n + direction.published(1.0) * np.sqrt(DIM) * direction.weight
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_directions_belong_to_one_model(tmp_path):
    path = tmp_path / "directions.json"
    weight = np.array([0.6, 0.8])
    found = Direction(weight, np.zeros(2), np.ones(2), 1.3, "diagnosis:AD")
    write_directions(path, {"diagnosis": found}, digests={"ldae": "one"})
    read = read_direction(path, "diagnosis:AD", ldae_digest="one")
    np.testing.assert_array_equal(read.weight, weight)
    assert (read.spread, read.towards) == (1.3, "diagnosis:AD")
    assert read_direction(path, "diagnosis", ldae_digest="one").spread == 1.3
    odd = tmp_path / "odd.json"
    write_directions(
        odd, {"bin:dx": dataclasses.replace(found, towards="bin:dx:1")}, digests={"ldae": "one"}
    )
    for name in ("bin:dx", "bin:dx:1"):
        assert read_direction(odd, name, ldae_digest="one").towards == "bin:dx:1"
    with pytest.raises(ContractError, match="directions of another LDAE"):
        read_direction(path, "diagnosis:AD", ldae_digest="two")
    with pytest.raises(ContractError, match="diagnosis:AD with negative scales"):
        read_direction(path, "diagnosis:CN", ldae_digest="one")
    with pytest.raises(ContractError, match=r"age_years is not among .*: diagnosis:AD$"):
        read_direction(path, "age_years", ldae_digest="one")
    path.write_text("{}")
    with pytest.raises(ContractError, match="run `pipeline probe`"):
        read_direction(path, "diagnosis:AD", ldae_digest="one")


def test_ends_of_an_interpolation_are_the_reconstructions(models, opener, source):
    other = opener.open(OTHER)
    outcome = interpolate(models, source.z_0, other.z_0, [0.0, 0.5, 1.0])
    for i, scan in ((0, source), (2, other)):
        expected = reconstruct(models, scan.z_0).volumes[0]
        torch.testing.assert_close(outcome.volumes[i], expected, atol=1e-3, rtol=0)
    assert not torch.allclose(outcome.volumes[1], outcome.volumes[0], atol=1e-3)
    with pytest.raises(ParamsError, match=r"--alpha 1.5: expected 0 .* --extrapolate"):
        interpolate(models, source.z_0, other.z_0, [0.5, 1.5])
    beyond = interpolate(models, source.z_0, other.z_0, [1.5], extrapolate=True)
    assert beyond.record["extrapolated"]


def test_slerp_keeps_the_length_and_survives_equal_noises():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 3, 7, 8, 9, generator=generator) for _ in range(2))
    b = b * a.norm() / b.norm()
    alpha = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    path = slerp(a, b, alpha)
    torch.testing.assert_close(path[[0, 2]], torch.cat([a, b]))
    assert path.flatten(1).norm(dim=1).tolist() == pytest.approx([float(a.norm())] * 3, rel=1e-5)
    torch.testing.assert_close(slerp(a, a, alpha), a.expand(3, -1, -1, -1, -1))


def test_months_are_places_between_the_visits():
    assert alphas_of_months([6, 12, 18], 6, 18, extrapolate=False) == [0, 0.5, 1]
    assert alphas_of_months([12], 24, 0, extrapolate=False) == [0.5]
    assert alphas_of_months([24], 0, 12, extrapolate=True) == [2]
    with pytest.raises(ParamsError, match=r"--months 24: expected 0 to 12, .*--extrapolate"):
        alphas_of_months([24], 0, 12, extrapolate=False)
    with pytest.raises(ParamsError, match="both scans are of month 6"):
        alphas_of_months([6], 6, 6, extrapolate=True)


def oblique(shape, zooms=2.0):
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-zooms, zooms, zooms])
    affine[:3, 3] = [40, -30, -25]
    return affine


def test_native_output_overlays_its_input():
    """A brain sampled from an oblique, flipped grid onto the MNI grid goes back where it was."""
    shape = (37, 42, 33)
    native = NativeSpace(
        native_to_mni=np.array(
            [[1.1, 0.1, 0, 3], [-0.1, 1.05, 0, -12], [0, 0, 0.95, 4], [0, 0, 0, 1]]
        ),
        native_affine=oblique(shape),
        native_shape=shape,
        intensity_range=(200.0, 900.0),
    )
    inside = np.zeros(shape, bool)
    inside[7:30, 8:33, 6:27] = True
    field = gaussian_filter(np.random.default_rng(0).normal(size=shape), 3)
    field = (field - field[inside].min()) / np.ptp(field[inside])
    scan = np.where(inside, 200 + 700 * field, 0).astype(np.float32)
    grid = GridParams(shape=(60, 64, 56), zooms=2.0)
    target = grid_affine(grid)
    to_voxel_world = np.linalg.inv(native.native_to_mni) @ target
    values, mask = resample_masked(scan, inside, native.native_affine, to_voxel_world, grid.shape)
    levels, limits = scale_intensities(values, mask, (0, 100))
    native = NativeSpace(
        native_to_mni=native.native_to_mni,
        native_affine=native.native_affine,
        native_shape=shape,
        intensity_range=limits,
    )
    unit = levels.astype(np.float32) / 255
    back = to_native(unit, brain_of(unit, unit > 0), native, target)
    assert back.shape == shape
    both = inside & (back > 0)
    assert both.sum() / inside.sum() > 0.95
    assert ((back > 0) & ~inside).sum() / inside.sum() < 0.1
    assert np.corrcoef(back[both], scan[both])[0, 1] > 0.97
    assert np.abs(back[both] - scan[both]).mean() < 25
    gain = BiasField(
        np.linspace(-0.5, 0.5, 4, dtype=np.float32).reshape(4, 1, 1), np.diag([30.0, 30, 30, 1])
    )
    shaded = to_native(
        unit, brain_of(unit, unit > 0), dataclasses.replace(native, bias=gain), target
    )
    expected = gain.on(native.native_affine, shape)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(shaded[both] / back[both], expected[both], rtol=1e-4)
    nothing = to_native(unit * 0, np.zeros(unit.shape, bool), native, target)
    assert nothing.shape == shape
    assert not nothing.any()


def test_the_brain_includes_its_dark_ventricles_but_no_specks():
    volume = np.zeros((17, 18, 19), np.float32)
    volume[3:14, 3:14, 3:14] = 0.7
    volume[7:9, 7:9, 7:9] = 0.02
    volume[16, 16, 16] = 0.9
    expected = np.zeros(volume.shape, bool)
    expected[3:14, 3:14, 3:14] = True
    np.testing.assert_array_equal(brain_of(volume), expected)
    assert not brain_of(np.zeros((7, 8, 9), np.float32)).any()


def test_files_say_what_was_done(tmp_path, opener, models, direction):
    writer = Writer(out=tmp_path, command="manipulate", space="mni", models=models)
    failed = run_batch(
        [SCAN, OTHER], opener, writer, lambda s: manipulate(models, s.z_0, direction, (-1.0, 1.0))
    )
    assert not failed
    record = json.loads((tmp_path / f"{SCAN}_manipulate.json").read_text())
    assert record["models"]["ldae"] == models.ldae.digest
    assert (record["sampler"], record["num_inference_steps"]) == ("dpm", 6)
    assert [output["scale"] for output in record["outputs"]] == [-1, 1]
    image = nib.load(tmp_path / record["outputs"][0]["file"])
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, models.autoencoder.grid.affine)
    assert int(image.header["sform_code"]) == 4
    assert (tmp_path / record["picture"]).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_native_space_is_the_grid_of_the_file(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    assert not run_batch([SCAN], opener, writer, lambda s: reconstruct(models, s.z_0))
    (path,) = tmp_path.glob("*_space-native_T1w.nii.gz")
    image = nib.load(path)
    assert image.shape == (30, 40, 50)
    np.testing.assert_allclose(image.affine, np.eye(4))


def test_without_volumes_there_is_no_way_back(tmp_path, opener, models):
    alone = Opener(
        models=models, latents=opener.latents, volumes=None, preprocess=PreprocessParams()
    )
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    with pytest.raises(ContractError, match="give its --volumes"):
        run_batch([SCAN], alone, writer, lambda s: reconstruct(models, s.z_0))


def test_scans_that_cannot_be_opened_are_named_before_any_work(opener):
    for names, expected in (
        (["sub-999"], "sub-999 not in the store"),
        (["nowhere.nii.gz"], "nowhere.nii.gz: no such file"),
    ):
        with pytest.raises((ContractError, ParamsError), match=expected):
            check_names(names, opener.latents)


def test_two_scans_of_one_name_would_write_the_same_files(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    with pytest.raises(ParamsError, match="given twice"):
        run_batch([SCAN, SCAN], opener, writer, lambda s: reconstruct(models, s.z_0))
    check_names([SCAN, SCAN], opener.latents)  # a pair has one set of files


def test_volumes_are_made_a_batch_at_a_time(tmp_path, monkeypatch, models):
    """So a thousand of them need the memory of one batch."""
    outcome = generate(models, count=5, seed=3, prior=None)
    asked, generate_rows = [], NewBrains.generate

    def counting(self, rows):
        asked.append(len(range(5)[rows]))
        return generate_rows(self, rows)

    monkeypatch.setattr(NewBrains, "generate", counting)
    few = dataclasses.replace(models, batch_size=2)
    writer = Writer(out=tmp_path, command="generate", space="mni", models=few)
    writer.write(outcome, stem="seed-3", record={})
    assert asked == [2, 2, 1]
    last = nib.load(tmp_path / "seed-3_generate-5_space-MNI152_T1w.nii.gz")
    np.testing.assert_allclose(last.get_fdata(), outcome.volumes[4], atol=1e-4)


def test_brains_made_already_are_kept(tmp_path, models):
    writer = Writer(out=tmp_path, command="generate", space="mni", models=models)
    for count, expected in ((2, True), (2, False), (3, True)):
        outcome = generate(models, count=count, seed=3, prior=None)
        record = {"options": {"count": count, "seed": 3, "prior": None}}
        _, written = writer.write_once(outcome, stem="seed-3", record=record)
        assert written is expected
    assert not (writer.out / "seed-3_generate-4_space-MNI152_T1w.nii.gz").exists()


def test_scans_made_already_are_kept(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="vary", space="mni", models=models)
    applied = []

    def run(names, *, seed=0, writer=writer):
        applied.clear()

        def apply(source):
            applied.append(source.scan_id)
            return vary(models, source.z_0, name=source.scan_id, count=2, seed=seed)

        assert not run_batch(names, opener, writer, apply, options={"count": 2, "seed": seed})
        return applied

    assert run([SCAN]) == [SCAN]
    assert run([SCAN, OTHER]) == [OTHER]
    assert run([SCAN, OTHER]) == []
    next(tmp_path.glob(f"{OTHER}_vary-1*.nii.gz")).unlink()
    assert run([SCAN, OTHER]) == [OTHER], "a file is gone"
    (tmp_path / f"{SCAN}_vary.json").write_text("{")
    assert run([SCAN, OTHER]) == [SCAN], "its record is cut off"
    assert run([SCAN], seed=1) == [SCAN], "another option"
    slower = dataclasses.replace(models, num_inference_steps=7)
    assert run([SCAN], seed=1, writer=dataclasses.replace(writer, models=slower)) == [SCAN]


def test_directions_seeds_and_spaces_share_a_folder(tmp_path, models):
    writer = Writer(out=tmp_path, command="generate", space="mni", models=models)
    made = [
        dataclasses.replace(writer, variant=variant).write_once(
            generate(models, count=1, seed=3, prior=None), stem="seed-3", record={}
        )
        for variant in ("", "prior", "", "prior")
    ]
    assert [written for _, written in made] == [True, True, False, False]
    assert len(list(tmp_path.glob("*.nii.gz"))) == len(list(tmp_path.glob("*.json"))) == 2
    native = dataclasses.replace(writer, space="native").document("sub-1")
    assert native.name == "sub-1_generate_space-native.json"


def test_a_pair_made_already_is_kept(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="interpolate", space="mni", models=models)

    def made(alphas, **options):
        return run_pair(
            SCAN, OTHER, opener, writer, InterpolationPoints(alphas, None, False, {}), **options
        )[1]

    assert made([0.25, 0.5])
    assert not made([0.25, 0.5])
    assert made([0.25])
    assert made([0.25], detail=True)
    assert not made([0.25], detail=True)
    next(tmp_path.glob("*alpha0.25*.nii.gz")).unlink()
    assert made([0.25], detail=True), "a file is gone"


def test_an_image_made_already_is_kept_until_it_changes(tmp_path, models, opener, monkeypatch):
    import pipeline.applications.runner as batch

    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"one")
    opened = []

    def scan_from_file(path, models, params):
        opened.append(path)
        source = opener.open(SCAN)
        record = identity_of_file(path, params) | {"qc": {"status": "pass"}}
        return dataclasses.replace(source, scan_id="head", record=record)

    monkeypatch.setattr(batch, "preprocessing_for", lambda *_, **__: PreprocessParams())
    monkeypatch.setattr(batch, "scan_from_file", scan_from_file)
    writer = Writer(out=tmp_path / "made", command="reconstruct", space="mni", models=models)
    for content, times in ((b"one", 1), (b"one", 1), (b"two", 2)):
        path.write_bytes(content)
        assert not run_batch([str(path)], opener, writer, lambda s: reconstruct(models, s.z_0))
        assert len(opened) == times


def test_labels_tell_close_values_apart():
    assert numbered("alpha", [0.5, 1], digits=3) == ["alpha0.500", "alpha1.000"]
    assert numbered("scale", [0, 0.005, 0.01], digits=2, sign="+")[1] == "scale+0.005"
    with pytest.raises(ParamsError, match=r"scale: 2 is given twice"):
        numbered("scale", [1, 2, 2], digits=2)


def test_volumes_lie_where_the_study_has_them(tmp_path, autoencoder_path, ldae_path, latents_path):
    """Not where the autoencoder was trained."""
    elsewhere = tmp_path / "ae"
    shutil.copytree(autoencoder_path, elsewhere)
    config = json.loads((elsewhere / CONFIG).read_text())
    config["grid"] = {"shape": [8, 8, 8], "affine": np.eye(4).tolist(), "orientation": "RAS"}
    (elsewhere / CONFIG).write_text(json.dumps(config))
    models = load_models(elsewhere, ldae_path, EvaluateParams(), device=CPU)
    latents = open_latents(latents_path)
    assert models.autoencoder.grid == latents.attributes.grid
    check_latents(latents, models)


def test_latents_of_another_shape_are_refused(latents_path, models):
    frozen = dataclasses.replace(
        models.ldae, config=models.ldae.config | {"latent_shape": [3, 9, 9, 9]}
    )
    with pytest.raises(ContractError, match=r"latents of .* the LDAE was trained on"):
        check_same_autoencoder(open_latents(latents_path), frozen)


def preprocessed(status="pass"):
    return SimpleNamespace(
        volume=smooth_volume(16),
        native_to_mni=np.eye(4),
        native_affine=np.diag([3.0, 3, 3, 1]),
        native_shape=(17, 25, 21),
        intensity_range=(5.0, 250.0),
        bias=None,
        qc={"status": status, "reasons": "brain of 9 ml, expected 600 to 2600", "ncc": 0.5},
    )


def test_a_new_image_gets_the_latent_of_its_volume(tmp_path, monkeypatch, opener, models):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"stands for an image")
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan", lambda path, params: preprocessed()
    )
    new = scan_from_file(path, models, PreprocessParams())
    assert (new.scan_id, new.record["qc"]["status"]) == ("head", "pass")
    assert (new.native.native_shape, new.native.intensity_range) == ((17, 25, 21), (5.0, 250.0))
    stored = scan_from_store(SCAN, models, opener.latents, opener.volumes)
    torch.testing.assert_close(new.z_0, stored.z_0, atol=5e-3, rtol=5e-3)
    syn = PreprocessParams(registration="syn")
    assert scan_from_file(path, models, syn).native is None


def test_pictures_of_a_manipulation_compare_with_scale_0(opener, models, direction, source):
    own = np.full(SHAPE, 0.03, np.float32)
    outcome = manipulate(models, source.z_0, direction, (-1.0, 0.0))
    for compared in (outcome, add_residual(outcome, ScanResidual(own))):
        title, volume = compared.comparison()
        assert title == "scale 0"
        np.testing.assert_allclose(volume, compared.volumes[1].numpy(), atol=1e-4, rtol=0)


def test_scale_0_of_a_manipulation_is_made_once(tmp_path, monkeypatch, opener, models, direction):
    rows, sample = [], LdaeInference.sample

    def counting(self, y_sem, x_T):
        rows.append(len(x_T))
        return sample(self, y_sem, x_T)

    monkeypatch.setattr(LdaeInference, "sample", counting)
    writer = Writer(out=tmp_path, command="manipulate", space="mni", models=models)
    scales = (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert not run_batch(
        [SCAN], opener, writer, lambda s: manipulate(models, s.z_0, direction, scales)
    )
    assert sum(rows) == len(scales)
    outputs = json.loads(writer.document(SCAN).read_text())["outputs"]
    assert [output["scale"] for output in outputs] == list(scales)


def test_a_single_scan_shows_progress_by_sampler_steps(
    monkeypatch, caplog, opener, models, tmp_path
):
    """Minutes on a processor; with several scans, the scans are counted."""
    monkeypatch.setattr("pipeline.runtime.progress.Progress.seconds_between_lines", -1.0)
    watched = dataclasses.replace(models, watched=True)
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=watched)
    with caplog.at_level("INFO"):
        run_batch([SCAN], opener, writer, lambda s: reconstruct(watched, s.z_0))
    steps = models.num_inference_steps
    assert f"x_T by inversion {steps}/{steps}" in caplog.text
    assert f"sampling {steps}/{steps}" in caplog.text


def test_the_record_says_how_native_output_overlays_its_file(tmp_path, monkeypatch, opener, models):
    scan = preprocessed()
    path = tmp_path / "head.nii.gz"
    noise = np.random.default_rng(0).normal(300, 60, scan.native_shape).astype(np.float32)
    nib.save(nib.Nifti1Image(gaussian_filter(noise, 1), scan.native_affine), path)
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan", lambda path, params: scan
    )
    monkeypatch.setattr("pipeline.applications.runner.preprocessing_for", lambda *a, **k: a[1])
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    assert not run_batch([str(path)], opener, writer, lambda s: reconstruct(models, s.z_0))
    (output,) = json.loads(writer.document("head").read_text())["outputs"]
    made, image = (nib.load(f).get_fdata() for f in (tmp_path / output["file"], path))
    expected = np.corrcoef(made[made != 0], image[made != 0])[0, 1]
    assert output["correlation_with_file"] == pytest.approx(expected, abs=1e-4)
    assert output["correlation_with_file_smoothed"] != output["correlation_with_file"]


def test_smoothed_correlation_forgives_noise_and_no_shift():
    random = np.random.default_rng(0)
    image = gaussian_filter(random.normal(size=(40, 40, 40)), 3).astype(np.float32)
    made = np.zeros_like(image)
    made[8:-8, 8:-8, 8:-8] = (image / image.std() + 5)[8:-8, 8:-8, 8:-8]
    noisy = made + random.normal(0, 2, image.shape).astype(np.float32)
    sigma = resolution(3.0, np.diag([1.0, 1.0, 1.0, 1.0]))
    assert sigma == pytest.approx([1.274] * 3, abs=1e-3)
    assert overlay(made, noisy) < 0.6
    assert overlay(made, noisy, sigma) > 0.95
    assert overlay(made, np.roll(noisy, 4, axis=0), sigma) < 0.7
    # What lies outside has no weight.
    outside = np.where(made == 0, 1000, noisy).astype(np.float32)
    assert overlay(made, outside, sigma) == pytest.approx(overlay(made, noisy, sigma), abs=1e-4)


def test_a_scan_of_the_store_gets_its_bias_field_back(opener, models):
    native = scan_from_store(SCAN, models, opener.latents, opener.volumes).native
    field = native.bias.on(native.native_affine, native.native_shape)
    np.testing.assert_allclose(field, np.exp(0.01 * int(SCAN[4:])), rtol=1e-3)


def test_a_store_of_an_earlier_version_has_no_bias_field(tmp_path, monkeypatch, opener, models):
    arrays = volume_module._arrays
    monkeypatch.setattr(volume_module, "_arrays", lambda shape: arrays(shape)[:-1])
    former = make_volumes(tmp_path / "volumes.zarr", opener.volumes.attributes.scan_ids)
    native = scan_from_store(SCAN, models, opener.latents, former).native
    assert native.bias is None


def test_the_stored_samples_of_a_bias_field_are_enough():
    """A field with N4's 25 mm knots, on its own 6 mm samples and on those of the store."""
    knots = np.random.default_rng(0).normal(0, 0.15, (11, 12, 11))
    fine = zoom(knots, 25 / 6, order=3).astype(np.float32)
    affine = np.diag([6.0, 6, 6, 1])
    affine[:3, 3] = -3 * np.array(fine.shape) + np.array([4, -15, 8])
    field = BiasField(fine, affine)
    stored = field.resampled(grid_affine(BIAS_GRID), BIAS_GRID.shape)
    grid = GridParams(shape=(70, 90, 70), zooms=2.0)
    exact = field.on(grid_affine(grid), grid.shape)
    assert np.std(np.log(exact)) > 0.08
    assert np.std(np.log(stored.on(grid_affine(grid), grid.shape) / exact)) < 0.02


def test_a_new_image_that_fails_quality_control_is_refused(tmp_path, monkeypatch, models):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"stands for an image")
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan",
        lambda path, params: preprocessed("fail"),
    )
    with pytest.raises(ScanError, match=r"head.nii.gz: fails quality control \(brain of 9 ml"):
        scan_from_file(path, models, PreprocessParams())
    monkeypatch.undo()
    with pytest.raises(ScanError, match=r"head.nii.gz: named as gzip"):
        scan_from_file(path, models, PreprocessParams())


def test_a_new_image_is_preprocessed_as_the_store_was(opener, models):
    with pytest.raises(ContractError, match="its grid is not one"):
        preprocessing_for(models, PreprocessParams(), volumes=None, latents=None)
    grid = mni_grid(GridParams(shape=SHAPE, zooms=3.0))
    on_grid = SimpleNamespace(autoencoder=SimpleNamespace(grid=grid, config={}))

    def volumes(zooms):
        grid = GridParams(shape=SHAPE, zooms=zooms)
        recorded = PreprocessParams(bias_field=False, grid=grid).model_dump(mode="json")
        attributes = SimpleNamespace(params={"preprocess": recorded})
        return SimpleNamespace(path=Path("volumes.zarr"), attributes=attributes)

    store = volumes(3.0)
    params = preprocessing_for(on_grid, PreprocessParams(), volumes=store, latents=None)
    assert (params.bias_field, params.grid.shape) == (False, SHAPE)
    with pytest.raises(ContractError, match="preprocessed in another way"):
        preprocessing_for(on_grid, PreprocessParams(), volumes=store, latents=opener.latents)
    with pytest.raises(ContractError, match=r"volumes.zarr: volumes of .* voxels of 2 mm, those"):
        preprocessing_for(on_grid, PreprocessParams(), volumes=volumes(2.0), latents=None)


def test_one_bad_scan_does_not_stop_a_batch(tmp_path, monkeypatch, opener, models):
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(b"no image")
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    names = [str(path), SCAN]
    assert run_batch(names, opener, writer, lambda s: reconstruct(models, s.z_0)) == [str(path)]
    assert (tmp_path / f"{SCAN}_reconstruct.json").is_file()


def test_names_of_files():
    assert stem_of(Path("a/sub-01_T1w.nii.gz")) == "sub-01"
    assert stem_of(Path("scan.v2.MGZ")) == "scan.v2"


def test_models_that_do_not_belong_together_are_refused(tmp_path, autoencoder_path, ldae_path):
    other = tmp_path / "ldae"
    other.mkdir()
    for file in ldae_path.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / CONFIG).read_text()) | {"autoencoder_digest": "another"}
    (other / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ContractError, match="another autoencoder"):
        load_models(autoencoder_path, other, EvaluateParams(), device=CPU)
    for many in ({"num_inference_steps": 1000}, {"other_steps": [5, 1000]}):
        with pytest.raises(ParamsError, match="1000 sampler steps: expected 1 to 999"):
            load_models(autoencoder_path, ldae_path, EvaluateParams(**many), device=CPU)


def test_volumes_of_another_study_are_refused(tmp_path, opener, models, latents_path):
    """They may have the same scan ids, and would be taken for the right ones."""
    other = copy.copy(opener.volumes)
    renewed = [f"{print_}0" for print_ in other.attributes.fingerprints]
    other.attributes = other.attributes.model_copy(update={"fingerprints": renewed})
    latents = open_latents(latents_path)
    with pytest.raises(ContractError, match=f"{SCAN} is not the volume that its latent"):
        scan_from_store(SCAN, models, latents, other)
    with pytest.raises(ContractError, match=r"20 of 20 scans"):
        check_same_scans(latents, other)
    check_same_scans(latents, opener.volumes)


def test_configs_that_describe_no_model_are_refused(tmp_path, ldae_path, autoencoder_path):
    whole = {
        path: json.loads((path / CONFIG).read_text()) for path in (ldae_path, autoencoder_path)
    }
    for path, change, expected in (
        (ldae_path, {"grid": None}, "no 'grid'"),
        (ldae_path, {"unet": {"in_channels": 8}}, "describes no model of this version"),
        (autoencoder_path, {"architecture": {"width": 3}}, "describes no model of this version"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(path, broken, dirs_exist_ok=True)
        config = {k: v for k, v in (whole[path] | change).items() if v is not None}
        (broken / CONFIG).write_text(json.dumps(config))
        with pytest.raises(ContractError, match=expected):
            (load_ldae if path == ldae_path else load_autoencoder)(broken, device=CPU)
    (broken / CONFIG).write_text("[1, 2]")
    with pytest.raises(ContractError, match="expected a model folder of kind ae"):
        load_autoencoder(broken, device=CPU)
    assert finished_metrics(broken, kind="ae", fingerprint="any") is None, "trained anew"


def test_latents_that_y_sem_was_not_made_of_are_refused(tmp_path, models, latents_path):
    latents = open_latents(latents_path)
    path = tmp_path / "semantics.zarr"
    embed_latents(latents, models.ldae, path, EmbedParams(), device=CPU)
    semantics = OpenStore(path, kind="semantics")
    check_same_latents(semantics, latents)
    renewed = [f"{print_}0" for print_ in latents.attributes.fingerprints]
    latents.attributes = latents.attributes.model_copy(update={"fingerprints": renewed})
    with pytest.raises(ContractError, match=r"the latent of sub-000 is not .*20 of 20 scans"):
        check_same_latents(semantics, latents)
    with pytest.raises(ContractError, match=r"1 of 1 scans"):
        check_same_latents(semantics, latents, [SCAN])


@pytest.fixture
def invoke(autoencoder_path, ldae_path, latents_path, volumes):
    def run(command, *arguments):
        models = ["--ae", str(autoencoder_path), "--ldae", str(ldae_path), "--steps", "3"]
        stores = ["--latents", str(latents_path), "--volumes", str(volumes.path)]
        options = [*models, *([] if command == "generate" else stores), "--quiet"]
        return CliRunner().invoke(app, [command, *arguments, *options])

    return run


@pytest.mark.slow
def test_commands_write_their_files(tmp_path, invoke, split, ldae_path, direction):
    directions = tmp_path / "directions.json"
    digest = json.loads((ldae_path / CONFIG).read_text())["weights_sha256"]
    found = Direction(
        direction.weight, direction.mean, direction.std, direction.spread, direction.towards
    )
    write_directions(directions, {"diagnosis": found}, digests={"ldae": digest})
    listed = tmp_path / "list.txt"
    listed.write_text(f"{SCAN}  # a comment\n\n{OTHER}\n")
    manifest = write_manifest_of(tmp_path, split)
    for command, arguments, count in (
        ("reconstruct", ["--list", str(listed), "--space", "native"], 2),
        ("vary", ["--scan", SCAN, "--count", "2", "--seed", "4"], 2),
        ("generate", ["--count", "2"], 2),
        (
            "manipulate",
            ["--scan", SCAN, "--direction", "diagnosis:AD", "--scale", "-1:1:3",
             "--directions", str(directions)],
            3,
        ),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--alpha", "0:1:2"], 2),
        (
            "interpolate",
            ["--a", SCAN, "--b", OTHER, "--months", "9", "--manifest", str(manifest)],
            1,
        ),
    ):  # fmt: skip
        out = tmp_path / f"{command}{count}"
        result = invoke(command, *arguments, "--out", str(out))
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert len(list(out.glob("*.nii.gz"))) == count
        for path in out.glob("*.json"):
            record = json.loads(path.read_text())
            assert record["command"] == command
            assert all((out / made["file"]).is_file() for made in record["outputs"])
    (made,) = (tmp_path / "interpolate1").glob("*.json")
    assert json.loads(made.read_text())["outputs"][0] | {"file": ""} == {
        "file": "",
        "alpha": 0.5,
        "months": 9.0,
    }


def test_detail_of_the_scans_is_added_to_what_lies_between(models, opener, tmp_path):
    writer = Writer(out=tmp_path, command="interpolate", space="mni", models=models)
    places = InterpolationPoints([0.25], None, False, {})
    plain = interpolate(models, *(opener.open(s).z_0 for s in (SCAN, OTHER)), [0.25]).volumes[0]
    run_pair(SCAN, OTHER, opener, writer, places, detail=True)
    (path,) = tmp_path.glob("*.nii.gz")
    first, second = (opener.open(scan) for scan in (SCAN, OTHER))
    details = [s.volume - models.decode(s.z_0)[0].numpy() for s in (first, second)]
    wanted = (plain.numpy() + 0.75 * details[0] + 0.25 * details[1]).clip(0, 1)
    np.testing.assert_allclose(nib.load(path).get_fdata(), wanted, atol=1e-5)
    without = dataclasses.replace(opener, volumes=None)
    with pytest.raises(ParamsError, match="--detail: give the --volumes"):
        run_pair(SCAN, OTHER, without, writer, places, detail=True)


def test_folders_are_tried_before_work_and_images_left_over_are_named(
    models, opener, tmp_path, caplog
):
    writer = Writer(out=tmp_path / "out", command="vary", space="mni", models=models)
    for count in (2, 1):
        run_batch([SCAN], opener, writer, lambda s, n=count: vary(
            models, s.z_0, name=s.scan_id, count=n, seed=0), options={"count": count})  # fmt: skip
    assert "of the former run 1 image(s) stay" in caplog.text
    assert "vary-2" in caplog.text
    (tmp_path / "file").touch()

    def never(source):
        raise AssertionError(source)

    blocked = dataclasses.replace(writer, out=tmp_path / "file")
    with pytest.raises(ContractError, match="file: a file is where a folder is wanted"):
        run_batch([SCAN], opener, blocked, never)
    with pytest.raises(
        ContractError, match=r"it has sub-\d+, sub-\d+, sub-\d+ and 17 more \(--verbose"
    ):
        check_names(["unlike-any"], opener.latents)


def test_the_scan_s_own_detail_makes_its_reconstruction_overlay_it(models, opener, tmp_path):
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    scan = opener.open(SCAN)

    def error(*, detail):
        run_batch([SCAN], opener, writer, lambda s: reconstruct(models, s.z_0), detail=detail)
        (path,) = tmp_path.glob("*.nii.gz")
        return float(np.abs(nib.load(path).get_fdata() - scan.volume).mean())

    inverted = reconstruct(models, scan.z_0).volumes[0] - models.decode(scan.z_0)[0]
    assert error(detail=False) > 0.01
    # What is left is the sampler's error alone, the autoencoder's is gone.
    assert error(detail=True) <= float(inverted.abs().mean()) + 1e-6
    (record,) = tmp_path.glob("*.json")
    assert json.loads(record.read_text())["detail"] == "of the scan itself"


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("reconstruct", [], "no scan given"),
        ("reconstruct", ["--input", "README.md"], "expected an image file"),
        ("reconstruct", ["--list", "nowhere.txt"], "nowhere.txt: not a readable"),
        ("manipulate", ["--scan", SCAN, "--direction", "x", "--scale", "1:2"], "--scale '1:2'"),
        ("interpolate", ["--a", SCAN, "--b", SCAN], "expected two scans"),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--alpha", "2"], "--extrapolate"),
        ("interpolate", ["--a", SCAN, "--b", OTHER, "--months", "2"], "give the --manifest"),
        (
            "interpolate",
            ["--a", SCAN, "--b", OTHER, "--months", "2", "--alpha", "0"],
            "both given; use one",
        ),
        ("generate", ["--method", "prior"], "give --semantics and --manifest"),
    ],
)
def test_mistakes_are_one_line(tmp_path, invoke, command, arguments, expected):
    result = invoke(command, *arguments, "--out", str(tmp_path / "out"))
    assert expected in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
