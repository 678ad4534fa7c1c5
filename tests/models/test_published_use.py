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
from pipeline.applications.manipulate import manipulate
from pipeline.diffusion.samplers import invert, sample
from pipeline.diffusion.schedule import alpha_sigma
from pipeline.encoding.embed import embed_latents
from pipeline.evaluation.manipulation import evaluate_manipulation
from pipeline.models.conversion.published_import import ImportChoices, ImportFiles, import_ldae
from pipeline.models.direction import find_direction, read_direction
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.inference import load_models
from pipeline.nets.published import PublishedEncoder
from pipeline.probes.applied import apply_probes, write_known_spread
from pipeline.report.provenance import whose_weights
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import open_volumes
from pipeline.study.study import Study, levels
from schemas.diffusion import TrainLdaeParams
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams, ProbeParams
from schemas.params import EmbedParams
from schemas.results import EvaluateMetrics
from stages.cli import app, main
from stages.params_file import load_params
from tests.support import published_layout as layout
from tests.support.paths import ROOT
from tests.support.published_models import NAMES, PublishedStudy, make_store, make_study

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> PublishedStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def models(study):
    params = EvaluateParams(num_inference_steps=3, other_steps=(), precision="fp32")
    return load_models(study.ae, study.ldae, params, device=CPU)


def codes(study) -> np.ndarray:
    return OpenStore(study.semantics, kind="semantics").array("y_sem")[:]


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    return result.output


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
    with pytest.raises(ContractError, match=r"preprocess to that grid and encode") as error:
        embed_latents(
            open_latents(study.latents), ldae, tmp_path / "y.zarr", EmbedParams(), device=CPU,
            volumes=open_volumes(study.volumes),
        )  # fmt: skip
    assert "\n" not in str(error.value)
    assert not (tmp_path / "y.zarr").exists()


def test_embedding_without_its_volumes_or_with_others_leaves_nothing(study, tmp_path):
    grid = load_autoencoder(study.ae, device=CPU).grid
    make_store(tmp_path / "v.zarr", study.scans, grid.model_copy(update={"shape": (32, 32, 32)}))
    ldae, latents = load_ldae(study.ldae, device=CPU), open_latents(study.latents)
    for others, expected in (
        (None, "reads volumes; give them with --volumes"),
        (open_volumes(tmp_path / "v.zarr"), r"volumes of 32×32×32 .* encoded from 32×40×32"),
    ):
        with pytest.raises(ContractError, match=expected):
            embed_latents(
                latents, ldae, tmp_path / "y.zarr", EmbedParams(), device=CPU, volumes=others
            )
        assert not list(tmp_path.glob("y.zarr*"))


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


@pytest.mark.slow
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


def test_the_evaluation_moves_by_the_published_scale_and_says_so(study, models):
    moves = {"unit": "published", "scales": (0.0, 2.5), "max_subjects": 1}
    judged = Study(
        models=models, volumes=open_volumes(study.volumes), latents=open_latents(study.latents),
        manifest=pd.read_csv(study.manifest), params=EvaluateParams(manipulation=moves),
        probe=ProbeParams(), directions=study.directions,
    )  # fmt: skip
    part = evaluate_manipulation(judged)
    assert part.metrics["scale_unit"] == "published scale s"
    assert part.per_scan["scale"].tolist() == [0.0, 2.5]
    direction = read_direction(study.directions, "diagnosis:AD", ldae_digest=study.digest())
    scan = judged.open_scan("sub-00")
    scales = [0.0, 2.5 * math.sqrt(layout.SMALL.dim)]
    made = manipulate(models, scan.z_0, direction, scales, volume=scan.encoder_volume)
    np.testing.assert_array_equal(part.pictures["ldae"][0], levels(made.volumes.numpy()))


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


@pytest.mark.slow
def test_training_starts_from_an_imported_stage_1(study, tmp_path):
    import_ldae(
        ImportFiles(decoder=study.folder / "decoder.pth"), tmp_path / "ldm", ae=study.ae,
        device=CPU, choices=ImportChoices(steps=0, stage_1=True),
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


@pytest.mark.slow
def test_twenty_steps_of_dpm_are_as_near_as_a_hundred_of_ddim(study, tmp_path):
    """On imported weights, against many steps: a fifth of the evaluations."""
    sizes = layout.Sizes(blocks=1, multipliers=(1, 2), attention=(1,))
    torch.save(layout.make_decoder(sizes, branch=False), tmp_path / "unet.pth")
    import_ldae(
        ImportFiles(decoder=tmp_path / "unet.pth"), tmp_path / "ldm", ae=study.ae, device=CPU,
        choices=ImportChoices(steps=0),
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
    evaluated = EvaluateMetrics(imported={"ldae": imported})
    assert "decoder.pth" in whose_weights(None, evaluated)[0]
    assert whose_weights(None, EvaluateMetrics()) == ()


def test_the_published_preset_is_the_grid_and_scale_of_the_published_weights():
    params = load_params(ROOT / "params" / "published.yaml", [])
    grid = params.preprocess.grid
    assert (grid.shape, grid.zooms) == ((128, 160, 128), 1.5)
    assert params.preprocess.intensity == "minmax"
    assert params.preprocess.registration in ("affine", "syn")
    assert params.train_ldae.encoder.kind == "published"
    assert params.train_ldae.encoder.dim == 768
