"""What follows an import: y_sem of a store, its probe applied, its direction, training on it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import pipeline.training.latent_diffusion as stages
from pipeline.applications.inputs import scan_from_store
from pipeline.diffusion.samplers import invert, sample
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.encoding.embed import embed_latents
from pipeline.imaging.preprocess_scan import scale_intensities
from pipeline.models.conversion.published_import import Choices, Files, import_ldae
from pipeline.models.direction import Readout, find_direction, read_direction, write_directions
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.inference import load_models
from pipeline.nets.published import PublishedEncoder, sinusoids
from pipeline.probes.applied import apply_probes, write_known_spread
from pipeline.probes.protocols import fit_probes
from pipeline.probes.readouts import readouts_of
from pipeline.report.provenance import whose_weights
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import open_volumes
from schemas.diffusion import SemanticEncoderParams, TrainLdaeParams
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams, ProbeParams
from schemas.params import EmbedParams, PreprocessParams
from stages.cli import app, main
from stages.params_file import load_params
from tests import published_layout as layout
from tests.published_models import NAMES, PublishedStudy, make_store, make_study
from tests.test_probes import QUICK, cohort
from tests.tiny_study import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> PublishedStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def models(study):
    params = EvaluateParams(num_inference_steps=3, other_steps=())
    return load_models(study.ae, study.ldae, params, device=CPU)


def codes(study) -> np.ndarray:
    return OpenStore(study.semantics, kind="semantics").array("y_sem")[:]


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    return result.output


# y_sem


def test_y_sem_of_a_store_is_what_a_second_implementation_gives(study):
    shown = open_volumes(study.volumes).load_unit_interval(["sub-03"])
    expected = layout.naive_y_sem(layout.make_encoder(), shown)
    np.testing.assert_allclose(codes(study)[3:4], expected, atol=1e-4)


def test_applications_read_y_sem_off_the_volume_itself(study, models):
    source = scan_from_store(
        "sub-03", models, open_latents(study.latents), open_volumes(study.volumes)
    )
    own = models.infer_codes(source.z_0, source.encoder_volume).y_sem
    np.testing.assert_allclose(own, codes(study)[3:4], atol=1e-4)
    assert float((models.infer_codes(source.z_0).y_sem - own).abs().max()) > 1e-3


def test_volumes_of_another_grid_are_refused_in_one_line(study, tmp_path):
    ldae = load_ldae(study.ldae, device=CPU)
    grid = load_autoencoder(study.ae, device=CPU).grid
    make_store(tmp_path / "v.zarr", 2, grid.model_copy(update={"shape": (32, 40, 40)}))
    from pipeline.encoding.embed import check_volumes

    with pytest.raises(ContractError, match=r"40 axial slices, the semantic encoder reads 32"):
        check_volumes(ldae, open_volumes(tmp_path / "v.zarr"))
    ldae.config["latent_shape"] = [3, 4, 5, 5]
    with pytest.raises(ContractError, match=r"preprocess to 32×40×32 voxels and encode") as error:
        embed_latents(
            open_latents(study.latents), ldae, tmp_path / "y.zarr", EmbedParams(), device=CPU,
            volumes=open_volumes(study.volumes),
        )  # fmt: skip
    assert "\n" not in str(error.value)
    assert not (tmp_path / "y.zarr").exists()


# The direction and the probe


def test_a_published_scale_moves_y_sem_as_published(study):
    direction = read_direction(
        study.directions, "diagnosis:AD", ldae_digest=study.digest(), dim=layout.SMALL.dim
    )
    probe = torch.load(study.folder / NAMES["probe"], weights_only=True)
    mean, std = (
        torch.load(study.folder / NAMES[n], weights_only=True).double().numpy()
        for n in ("mean", "std")
    )
    weight = probe["weight"][0].double().numpy()
    y_sem = codes(study)[0].astype(np.float64)
    # Towards AD is against the weights: the published positive class is CN.
    n = (y_sem - mean) / std - 2.5 * math.sqrt(len(weight)) * weight / np.linalg.norm(weight)
    moved = y_sem + direction.from_published(2.5) * direction.step
    np.testing.assert_allclose(moved, n * std + mean, atol=1e-6)
    assert direction.published(direction.from_published(2.5)) == pytest.approx(2.5)


def test_manipulate_takes_the_published_scale_and_gives_both(study, tmp_path):
    run(
        "manipulate", "--direction", "diagnosis:AD", "--published-scale", "-2.5,0,2.5", "--scan",
        "sub-01", "--latents", study.latents, "--volumes", study.volumes, "--ae", study.ae,
        "--ldae", study.ldae, "--steps", "2", "--out", tmp_path, "--space", "native",
    )  # fmt: skip
    (path,) = tmp_path.rglob("*.json")
    record = json.loads(path.read_text())
    details = [output for output in record["outputs"] if "published_scale" in output]
    assert [d["published_scale"] for d in details] == pytest.approx([-2.5, 0, 2.5])
    assert [d["scale"] for d in details] == pytest.approx(
        [s * math.sqrt(layout.SMALL.dim) for s in (-2.5, 0, 2.5)]
    )
    assert "length 1 in standardised y_sem" in record["scale_unit"]
    assert record["imported"]["files"]["decoder"]["file"] == "decoder.pth"
    assert len(list(tmp_path.rglob("*published-scale+2.50*.nii.gz"))) == 1


def test_two_units_of_one_scale_are_refused(study, tmp_path, capsys, monkeypatch):
    words = ["manipulate", "--direction", "diagnosis:AD", "--scale", "1", "--published-scale", "2",
             "--scan", "sub-01", "--ldae", str(study.ldae), "--out", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["pipeline", *words])
    with pytest.raises(SystemExit):
        main()
    assert "--scale and --published-scale: two units" in capsys.readouterr().err


def test_a_direction_of_another_length_is_refused_when_it_is_used(study, tmp_path):
    content = json.loads(study.directions.read_text())
    content["directions"]["diagnosis"]["std"].append(1.0)
    (tmp_path / "d.json").write_text(json.dumps(content))
    shared = {"ldae_digest": study.digest(), "dim": layout.SMALL.dim}
    with pytest.raises(ContractError, match="std 33; expected 32, the length of y_sem"):
        read_direction(tmp_path / "d.json", "diagnosis:AD", **shared)
    for key in ("weight", "mean"):
        content["directions"]["diagnosis"][key].append(1.0)
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(ContractError, match="expected 32"):
        read_direction(tmp_path / "d.json", "diagnosis:AD", **shared)


def test_a_studys_own_directions_come_before_the_imported_ones(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = json.loads((study.ldae / "config.json").read_text())
    found = find_direction(None, study.ldae, "diagnosis:AD", config=config)
    assert found.assumed_spread
    content = json.loads(study.directions.read_text())
    entry = content["directions"]["diagnosis"]
    del entry["assumed_spread"]
    entry["spread"] = 7.0
    own = tmp_path / "reports" / "probe" / "directions.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps(content))
    assert find_direction(None, study.ldae, "diagnosis:AD", config=config).spread == 7.0
    own.write_text(json.dumps(content | {"directions": {}}))
    assert find_direction(None, study.ldae, "diagnosis:AD", config=config).assumed_spread


def test_the_imported_probe_is_applied_to_new_scans_with_an_interval(study, tmp_path):
    said = run(
        "probe", "--apply", study.directions, "--manifest", study.manifest, "--semantics",
        study.semantics, "--out", tmp_path, "--set", "probe.bootstrap=50",
    )  # fmt: skip
    scores = pd.read_csv(tmp_path / "scores.csv")
    probe = torch.load(study.folder / NAMES["probe"], weights_only=True)
    mean, std = (
        torch.load(study.folder / NAMES[n], weights_only=True).numpy() for n in ("mean", "std")
    )
    logit = ((codes(study) - mean) / std) @ probe["weight"][0].numpy() + 0.3
    np.testing.assert_allclose(scores["score"], 1 - 1 / (1 + np.exp(-logit)), atol=1e-5)
    truth = np.array([0, 1] * (study.scans // 2))
    found = json.loads((tmp_path / "metrics.json").read_text())["test"]["diagnosis"]["y_sem"]
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(truth, scores["score"]))
    assert found["roc_auc"]["low"] < found["roc_auc"]["value"] < found["roc_auc"]["high"]
    assert f"scores of {study.scans} scans" in said
    written = json.loads((tmp_path / "directions.json").read_text())["directions"]["diagnosis"]
    assert "assumed_spread" not in written
    assert written["spread"] == pytest.approx(scores["position"].std(ddof=0))


def test_without_labels_scans_are_scored_and_nothing_is_judged(study, tmp_path):
    table = pd.read_csv(study.manifest).assign(diagnosis="unknown")
    table.to_csv(tmp_path / "manifest.csv", index=False)
    said = run(
        "probe", "--apply", study.directions, "--manifest", tmp_path / "manifest.csv",
        "--semantics", study.semantics, "--out", tmp_path / "out",
    )  # fmt: skip
    assert "no scan carries CN or AD" in said
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == study.scans


def test_two_scans_are_too_few_to_measure_a_spread(study, tmp_path):
    scores = pd.DataFrame({"subject_id": ["a", "b"], "target": "diagnosis", "position": [0.0, 9.0]})
    assert write_known_spread(study.directions, scores, tmp_path) == []
    entry = json.loads((tmp_path / "directions.json").read_text())["directions"]["diagnosis"]
    assert entry["assumed_spread"]


def test_a_probe_of_a_study_applied_again_gives_its_own_figures_and_judges_no_fitted_subject(
    tmp_path,
):
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    path = tmp_path / "directions.json"
    fitted = table["subject_id"][table["split"] != "test"]
    write_directions(
        path, results.directions, digests={"ldae": "x"}, readouts=readouts_of(results),
        fitted_subjects=fitted,
    )  # fmt: skip
    assert not any(subject in path.read_text() for subject in fitted)
    applied = apply_probes(path, features["y_sem"], table, QUICK, ldae_digest="x")
    for target in ("diagnosis", "age_years"):
        again = applied.results.metrics[target]["y_sem"]
        before = results.metrics[target]["y_sem"]
        for metric in ("roc_auc", "brier") if target == "diagnosis" else ("mae", "r2"):
            assert again[metric].value == pytest.approx(before[metric].value, abs=1e-6)
            assert again[metric].low == pytest.approx(before[metric].low, abs=1e-6)
    assert set(applied.results.predictions["subject_id"]) == set(
        table["subject_id"][table["split"] == "test"]
    )
    assert len(applied.scores) == 2 * len(table)
    with pytest.raises(ContractError, match="directions of another LDAE"):
        apply_probes(path, features["y_sem"], table, QUICK, ldae_digest="y")


@pytest.mark.parametrize("fault", ["none", "text", "no probe", "incomplete"])
def test_files_that_hold_no_probe_are_refused_in_one_line(study, tmp_path, fault):
    path = tmp_path / "directions.json"
    content = json.loads(study.directions.read_text())
    if fault == "text":
        path.write_text("hello\nworld")
    elif fault == "no probe":
        del content["directions"]["diagnosis"]["probe"]
        path.write_text(json.dumps(content))
    elif fault == "incomplete":
        del content["directions"]["diagnosis"]["probe"]["slope"]
        path.write_text(json.dumps(content))
    table = pd.read_csv(study.manifest)
    with pytest.raises(ContractError) as error:
        apply_probes(path, codes(study), table, ProbeParams(), ldae_digest=study.digest())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_readout_is_the_probe_it_was_made_of():
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    probe = results.fits["diagnosis"]["y_sem"]
    readout = readouts_of(results)["diagnosis"]
    assert readout == Readout(
        kind="classification", slope=pytest.approx(np.linalg.norm(probe.coef)),
        intercept=probe.intercept, classes=("CN", "AD"),
    )  # fmt: skip


# Training, sampling, report


def test_training_starts_from_an_imported_stage_1(study, tmp_path):
    import_ldae(
        Files(decoder=study.folder / "decoder.pth"), tmp_path / "ldm", ae=study.ae, device=CPU,
        choices=Choices(steps=0, stage_1=True),
    )  # fmt: skip
    ids = open_latents(study.latents).attributes.scan_ids
    params = TrainLdaeParams(
        steps=2, batch_size=2, checkpoint_every=2, precision="fp32",
        encoder={"kind": "published", "channels": [8, 16], "depths": [1, 1], "dim": 16,
                 "num_heads": 2},
    )  # fmt: skip
    metrics = stages.train_ldae(
        open_latents(study.latents), {"train": list(ids[:6]), "val": list(ids[6:9]), "test": []},
        load_diffusion(tmp_path / "ldm", device=CPU), params, tmp_path / "ldae", device=CPU,
        volumes=open_volumes(study.volumes),
    )  # fmt: skip
    assert math.isfinite(metrics["loss"])
    trained = load_ldae(tmp_path / "ldae", device=CPU).net
    assert isinstance(trained.encoder, PublishedEncoder)
    kept = load_diffusion(tmp_path / "ldm", device=CPU).diffusion.state_dict()
    torch.testing.assert_close(trained.diffusion.state_dict(), kept, atol=0, rtol=0)


def test_the_published_encoder_learns_in_pieces_what_it_learns_at_once(monkeypatch):
    torch.manual_seed(0)
    net = PublishedEncoder(channels=(8, 16), depths=(1, 1), num_slices=5, dim=16, num_heads=2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    volume = torch.rand(2, 1, 16, 24, 5)
    found = []
    for size in (1000, 3):
        monkeypatch.setattr("pipeline.nets.published.IMAGES_AT_A_TIME", size)
        net.zero_grad()
        net(volume).square().sum().backward()
        found.append({n: p.grad.clone() for n, p in net.named_parameters()})
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_positions_are_sines_at_even_and_cosines_at_odd_places():
    torch.testing.assert_close(sinusoids(9, 12), layout.positions(9, 12), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dim": 12}, "dim 12: published has 16"),
        ({"dim": 16, "num_slices": 4}, "num_slices: published reads every slice"),
    ],
)
def test_settings_that_the_published_encoder_cannot_have_are_refused(changes, expected):
    shared = {"kind": "published", "channels": (8, 16), "depths": (1, 1), "num_heads": 2}
    with pytest.raises(ValueError, match=expected):
        SemanticEncoderParams(**shared, **changes)


def test_twenty_steps_of_dpm_are_as_near_as_a_hundred_of_ddim(study, tmp_path):
    """On imported weights, against many steps: a fifth of the evaluations."""
    sizes = layout.Sizes(blocks=1, multipliers=(1, 2), attention=(1,))
    torch.save(layout.make_decoder(sizes, branch=False), tmp_path / "unet.pth")
    import_ldae(
        Files(decoder=tmp_path / "unet.pth"), tmp_path / "ldm", ae=study.ae, device=CPU,
        choices=Choices(steps=0),
    )  # fmt: skip
    net = load_diffusion(tmp_path / "ldm", device=CPU).diffusion
    calls = []

    def model(x_t, t):
        calls.append(1)
        # What exact weights predict of Gaussian latents, and a little of these beside.
        alpha, sigma = alpha_sigma(net.schedule.lambda_at(t[0]))
        return sigma * x_t / (0.25 * alpha**2 + sigma**2) + 0.02 * net.eps(x_t, t)

    z_0 = torch.randn(1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5

    def inverted(sampler, steps):
        calls.clear()
        how = {"sampler": sampler, "num_inference_steps": steps}
        x_t = invert(model, z_0, net.schedule, **how)
        return x_t, sample(model, x_t, net.schedule, **how), len(calls)

    truth = invert(model, z_0, net.schedule, sampler="dpm", num_inference_steps=250)
    x_dpm, made_dpm, calls_dpm = inverted("dpm", 20)
    x_ddim, made_ddim, calls_ddim = inverted("ddim", 100)
    assert calls_ddim == 5 * calls_dpm
    assert float((x_dpm - truth).norm()) <= float((x_ddim - truth).norm())
    assert float((made_dpm - z_0).norm()) <= 1.1 * float((made_ddim - z_0).norm())


def test_a_report_says_whose_weights_it_was_made_with(study):
    words = " ".join(whose_weights(study.folder, None))
    assert "LDAE: trained by others, imported from decoder.pth (sha256" in words
    assert "encoder.pth" in words
    assert "Autoencoder: trained by others, imported from autoencoderkl.pth" in words
    assert "non-profit research only" in words
    imported = json.loads((study.ldae / "config.json").read_text())["imported"]
    assert "decoder.pth" in whose_weights(None, {"imported": {"ldae": imported}})[0]
    assert whose_weights(None, {}) == ()


# Preprocessing as published


def test_minmax_maps_air_to_0_and_the_brightest_voxel_to_1():
    values = np.array([[0.0, 10.0, 55.0], [90.0, 200.0, 0.0]], np.float32)
    inside = values > 0
    levels, (low, high) = scale_intensities(values, inside, None)
    expected = np.rint(255 * values / 200)
    np.testing.assert_array_equal(levels[inside], expected[inside])
    assert (levels[~inside] == 0).all()
    # The way back, as native output goes it: 1 and 255 are the ends of the range.
    back = low + (levels[inside].astype(float) - 1) / 254 * (high - low)
    np.testing.assert_allclose(back, values[inside], atol=200 / 255 / 2 + 1e-4)


def test_a_choice_of_intensities_leaves_older_fingerprints_as_they_were():
    usual = PreprocessParams()
    assert "intensity" not in usual.content()
    assert "intensity" not in usual.recorded()
    published = usual.model_copy(update={"intensity": "minmax"})
    assert published.content()["intensity"] == "minmax"
    assert PreprocessParams.model_validate(published.recorded()) == published


def test_the_published_preset_is_the_grid_and_scale_of_the_published_weights():
    params = load_params(ROOT / "params" / "published.yaml", [])
    grid = params.preprocess.grid
    assert (grid.shape, grid.zooms) == ((128, 160, 128), 1.5)
    assert params.preprocess.intensity == "minmax"
    assert params.preprocess.registration in ("affine", "syn")
    assert params.train_ldae.encoder.kind == "published"
    assert params.train_ldae.encoder.dim == 768
