"""The evaluation on tiny models: every part and method, files written, mismatches refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from monai.networks.nets.resnet import resnet10
from typer.testing import CliRunner

import pipeline.training.latent_diffusion as stages
from pipeline.encoding.embed import embed_latents
from pipeline.evaluation import reconstruction
from pipeline.evaluation.evaluate import evaluate_study
from pipeline.evaluation.manipulation import evaluate_manipulation
from pipeline.evaluation.nearest_latents import Neighbours
from pipeline.evaluation.pca_direction import fit_pca_direction
from pipeline.evaluation.reconstruction import (
    METHODS,
    Scan,
    evaluate_reconstruction,
    reconstruct_all,
)
from pipeline.evaluation.reconstruction_speed import ROUNDS
from pipeline.evaluation.study import Study, of_many_subjects
from pipeline.metrics.distribution_distances import frechet_distance
from pipeline.metrics.reconstruction import summarise_reconstruction
from pipeline.metrics.sample_tests import copies, jackknifed, kernel_width, mean_of_pairs, mmd
from pipeline.models.direction import Direction, write_directions
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.models.inference import load_models, load_voxel_models
from pipeline.models.pretrained import load_medicalnet, medicalnet_features
from pipeline.nets.lpips import Lpips
from pipeline.report.headline import read_headline
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.training.voxel_latents import VoxelsAsLatents
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams, ProbeParams
from schemas.params import EmbedParams
from schemas.results import EvaluateMetrics
from stages.cli import app
from tests.test_training import CPU, LDAE, LDM

pytestmark = pytest.mark.slow
"""Networks are trained and judged."""

PARAMS = EvaluateParams.model_validate(
    {
        "num_inference_steps": 4,
        "other_steps": (2,),
        "bootstrap": 20,
        "manipulation": {"scales": (-1, 0, 1), "max_subjects": 2},
        "generation": {"count": 2},
    }
)


@pytest.fixture(scope="module")
def ldae_path(tmp_path_factory, latents_path, split):
    root = tmp_path_factory.mktemp("ldae")
    store = open_latents(latents_path)
    stages.train_denoiser(store, split, LDM, root / "ldm", device=CPU)
    frozen = load_diffusion(root / "ldm", device=CPU)
    stages.train_ldae(store, split, frozen, LDAE, root / "ldae", device=CPU)
    return root / "ldae"


@pytest.fixture
def manifest(split):
    """Subjects of one scan each, but the first three of test are visits of one."""
    rows = [
        {
            "scan_id": scan,
            "subject_id": scan,
            "split": name,
            "months_from_first": 0.0,
            "diagnosis": ("CN", "AD")[int(scan[4:]) % 2],
        }
        for name, scans in split.items()
        for scan in scans
    ]
    table = pd.DataFrame(rows)
    visits = table.index[table["split"] == "test"][:3]
    table.loc[visits, "subject_id"] = "sub-visits"
    table.loc[visits, "months_from_first"] = [0.0, 6, 24]
    return table


@pytest.fixture
def study(volumes, latents_path, autoencoder_path, ldae_path, manifest, tmp_path):
    how = EvaluateParams(num_inference_steps=4, batch_size=4)
    models = load_models(autoencoder_path, ldae_path, how, device=CPU)
    dim = models.ldae.config["encoder"]["dim"]
    weight = np.ones(dim) / np.sqrt(dim)
    along = Direction(weight, np.zeros(dim), np.ones(dim), 1.0, "diagnosis:AD")
    path = tmp_path / "directions.json"
    write_directions(path, {"diagnosis": along}, digests={"ldae": models.ldae.digest})
    return Study(
        models=models,
        volumes=volumes,
        latents=open_latents(latents_path),
        manifest=manifest,
        params=PARAMS,
        probe=ProbeParams(inner_folds=2),
        directions=path,
    )


def test_every_part_is_judged_and_written(tmp_path, study):
    out = tmp_path / "evaluate"
    metrics = evaluate_study(study, out)
    tables = {path.stem: pd.read_parquet(path) for path in (out / "per_scan").iterdir()}
    main = tables["reconstruction"].query("num_inference_steps == 4")
    assert main.groupby("method")["scan_id"].nunique().to_dict() == dict.fromkeys(METHODS, 5)
    assert set(metrics.reconstruction) == set(METHODS)
    pairs = {"ldae_minus_ae", "own_minus_other_y_sem"}
    assert set(metrics.differences) == pairs
    assert set(metrics.steps) == {"2", "4"}
    assert set(metrics.steps["2"]) == {"ldae", "ldae_y_sem_only", "lddim"}
    assert set(metrics.manipulation["methods"]) == {"ldae", "pca"}
    assert tables["manipulation"].groupby("method").size().to_dict() == {"ldae": 6, "pca": 6}
    assert metrics.interpolation["visits"] == 1
    assert list(metrics.interpolation["by_gap"]) == ["up to 24 months"]
    assert set(metrics.generation["sets"]) == {"held_out", "denoiser", "prior"}
    written = (out / "metrics.json").read_text()
    assert EvaluateMetrics.model_validate_json(written) == metrics
    with np.load(out / "pictures" / "manipulation.npz") as pictures:
        assert pictures["ldae"].shape == (2, 3, 16, 24, 20)
    lines = read_headline(evaluate=out)
    assert any("inverted x_T" in line for line in lines)
    assert all("subject" in line for line in lines if line.startswith("SSIM"))


def test_random_noise_depends_on_the_scan_alone(study):
    scans = [Scan("sub-017", "b", ()), Scan("sub-016", "a", ())]
    alone, _ = reconstruct_all(study, scans[1:])
    among, _ = reconstruct_all(study, scans)
    for method, volumes in alone.items():
        torch.testing.assert_close(among[method][1:], volumes, atol=1e-4, rtol=0)


def test_every_scan_is_given_y_sem_of_several_other_subjects(study):
    judged = study.judged
    counts = judged["subject_id"].value_counts()
    scans = list(reconstruction._with_other_subjects(judged))
    subject_of = dict(zip(judged["scan_id"], judged["subject_id"], strict=True))
    for scan in scans:
        others = [subject_of[other] for other in scan.other_ids]
        assert scan.subject_id not in others
        assert len(others) == len(set(others)) == min(reconstruction.OTHERS, len(counts) - 1)
    made, _ = reconstruct_all(study, scans[:2])
    several = made["ldae_other_y_sem"]
    assert several.shape[:2] == (2, len(scans[0].other_ids))
    alone = dataclasses.replace(scans[0], other_ids=scans[0].other_ids[-1:])
    last, _ = reconstruct_all(study, [alone])
    torch.testing.assert_close(last["ldae_other_y_sem"][0, 0], several[0, -1], atol=1e-4, rtol=0)
    rows = reconstruction.score_reconstruction(scans[0], made["ae"][0], {"x": several[0]}, 4)
    assert [row["y_sem_of"] for row in rows] == list(scans[0].other_ids)


def test_lpips_stands_in_the_table_where_its_weights_are(study):
    scan = Scan("sub-016", "a", ())
    torch.manual_seed(0)
    truth, lpips = torch.rand(16, 24, 20), Lpips().requires_grad_(False)
    worse = {"ae": truth[None][0], "ldae": (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1)}
    rows = pd.DataFrame(reconstruction.score_reconstruction(scan, truth, worse, 4, lpips))
    assert rows["lpips"][0] == 0
    assert rows["lpips"][1] != 0
    summary = summarise_reconstruction(rows)
    assert summary["ldae"]["lpips"]["value"] == pytest.approx(rows["lpips"][1])
    assert "lpips" not in reconstruction.score_reconstruction(scan, truth, worse, 4)[0]


def test_an_empty_split_is_refused(tmp_path, study):
    table = study.manifest[study.manifest["split"] == "train"]
    with pytest.raises(ContractError, match="no scan of the test split"):
        evaluate_study(dataclasses.replace(study, manifest=table), tmp_path)


def test_few_scans_are_of_many_subjects():
    scans = pd.DataFrame(
        {"subject_id": list("aaabbc"), "scan_id": ["a1", "a2", "a3", "b1", "b2", "c1"]}
    )
    chosen = [of_many_subjects(scans, n)["scan_id"].tolist() for n in (2, 4, 9)]
    assert chosen == [["a1", "b1"], ["a1", "b1", "c1", "a2"], ["a1", "b1", "c1", "a2", "b2", "a3"]]


def test_manipulation_without_its_direction_says_why(study, tmp_path):
    without = evaluate_manipulation(dataclasses.replace(study, directions=None))
    assert "no --directions" in without.metrics["skipped"]
    asked = PARAMS.model_copy(
        update={"manipulation": PARAMS.manipulation.model_copy(update={"direction": "sex:M"})}
    )
    unknown = evaluate_manipulation(dataclasses.replace(study, params=asked))
    assert "directions.json: diagnosis:AD; set evaluate" in unknown.metrics["skipped"]


def test_a_step_along_pca_moves_its_own_score_by_one(study):
    along = fit_pca_direction(study, "diagnosis:AD")
    latent = study.latents.load(["sub-016"]).mean.float()
    moved = (latent + along.moves([0.0, 1.0, 2.5])).flatten(1).numpy()
    start = along.position(latent.flatten(1).numpy())[0]
    np.testing.assert_allclose(along.position(moved) - start, [0, 1, 2.5], atol=1e-4)
    assert fit_pca_direction(study, "nothing:AD") is None


def test_the_nearest_latent_of_a_scan_is_its_own(study):
    known = Neighbours.of(study, study.scans)
    latent = study.latents.load(["sub-003"]).mean.float()
    assert known.nearest(latent.flatten(1).numpy()) == ["sub-003"]
    assert known.distances(known.sample()[:2]).shape == (2, 20)


def test_the_nearest_is_searched_among_all(study, monkeypatch):
    """Blocks bound the memory, not the search."""
    monkeypatch.setattr("pipeline.evaluation.nearest_latents.MAX_LATENTS", 3)
    known = Neighbours.of(study, study.scans)
    own = known.latents.astype(np.float32)
    assert known.nearest(own) == list(known.subjects)
    assert len(known.sample()) == 3


@pytest.mark.slow
def test_voxel_space_baseline_trains_and_stands_beside(
    study, volumes, manifest, tmp_path, ldae_path
):
    manifest.assign(path="x", session_id="1", source_digest="0", age_years="", sex="").to_csv(
        tmp_path / "manifest.csv", index=False
    )
    settings = {
        "train_ldm.steps": 2,
        "train_ldm.denoiser.base_channels": 4,
        "train_ldm.denoiser.multipliers": "[1,1]",
        "train_ldm.denoiser.attention_levels": "[]",
        "train_ldae.steps": 2,
        "train_ldae.encoder.channels": "[4,8]",
        "train_ldae.encoder.dim": 8,
    }
    out = tmp_path / "voxel-dae"
    result = CliRunner().invoke(
        app,
        ["train-voxel-dae", "--volumes", str(volumes.path), "--out", str(out), "--quiet"]
        + ["--manifest", str(tmp_path / "manifest.csv"), "--device", "cpu"]
        + [f"--set=evaluate.voxel_dae.{key}={value}" for key, value in settings.items()],
    )
    assert result.exit_code == 0, result.output
    how = EvaluateParams(num_inference_steps=4, batch_size=2)
    voxels = load_voxel_models(out, volumes.attributes.grid, how, device=CPU)
    made, _ = reconstruct_all(
        dataclasses.replace(study, voxel_dae=voxels), [Scan("sub-016", "a", ())]
    )
    assert made["voxel_dae"].shape == made["voxel_dae_y_sem_only"].shape == (1, 16, 24, 20)
    part = evaluate_reconstruction(dataclasses.replace(study, voxel_dae=voxels))
    pace = part.metrics["throughput"]
    medians = {name: np.median(seconds) for name, seconds in pace["seconds"].items()}
    assert pace["faster"]["ldae"] == pytest.approx(medians["voxel_dae"] / medians["ldae"])
    assert all(len(seconds) == ROUNDS for seconds in pace["seconds"].values())
    with pytest.raises(ContractError, match="an LDAE of latents"):
        load_voxel_models(ldae_path, volumes.attributes.grid, how, device=CPU)
    with pytest.raises(ContractError, match="trained on volumes of"):
        load_voxel_models(out, {"shape": [8, 8, 8]}, how, device=CPU)


def test_volumes_as_latents_are_the_volumes(volumes):
    store = VoxelsAsLatents(volumes.path)
    latents = store.load(["sub-007", "sub-002"])
    expected = volumes.read_unit_interval(slice(7, 8))
    np.testing.assert_allclose(latents.mean[:1].float().numpy(), expected, atol=5e-4)
    draw = latents.sample_posterior(torch.tensor([0]), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(draw.numpy(), expected, atol=5e-4)


def test_mmd_is_small_for_one_distribution_and_not_for_two():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 60, 5))
    width = kernel_width(x, y)
    assert abs(mmd(x, y, width).value) < 0.03
    assert mmd(x, y + 2, width).value > 0.3
    near, far = mmd(x, y, width), mmd(x, y + 2, width)
    assert near.interval is not None
    assert near.interval[0] <= 0 <= near.interval[1]
    assert far.excludes(0)


def test_discrepancies_of_one_study_are_on_one_scale():
    """The median distance of each comparison would make a far sample's kernel wider."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 30, 4))
    width = kernel_width(x, y)
    found = [mmd(x, y + shift, width).value for shift in (0, 2, 6, 60)]
    assert found == sorted(found)
    within = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / width)
    assert found[-1] > 2 * (within.sum() - 30) / (30 * 29) * 0.9, "no kernel reaches that far"


def test_pairs_that_share_brains_are_no_more_evidence_than_brains():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        own = generator.normal(size=8)
        likeness = np.add.outer(own, own) + 0.1 * generator.normal(size=(8, 8))
        interval = mean_of_pairs(likeness).interval
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert covered >= 182
    assert jackknifed(lambda rows: float(rows.mean()), 4).interval is None


def test_copies_are_found_with_the_power_that_is_told():
    held_out, planted = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.1, 0.2, 0.45])
    none = copies(np.full(8, 0.5), held_out, planted)
    assert (none["found"], none["power"]) == (0, 0.75)
    assert none["at_most"] == pytest.approx((1 - 0.05 ** (1 / 8)) / 0.75)
    some = copies(np.array([0.05] * 3 + [0.5] * 5), held_out, planted)
    assert some["found"] == 3
    assert some["at_most"] > none["at_most"]
    assert copies(np.full(8, 0.5), held_out, np.array([0.9]))["at_most"] == 1


def test_medicalnet_weights_are_loaded_strictly(tmp_path):
    settings = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False}
    net = resnet10(**settings, shortcut_type="B", bias_downsample=False)
    weights = {f"module.{name}": value for name, value in net.state_dict().items()}
    extra = {"module.conv_seg.0.weight": torch.zeros(1)}
    torch.save({"state_dict": weights | extra}, tmp_path / "net.pth")
    loaded = load_medicalnet(tmp_path / "net.pth", CPU)
    volumes = torch.rand(3, 24, 26, 28)
    features = medicalnet_features(loaded, volumes, CPU)
    assert features.shape == (3, 512)
    brain = (volumes[:1] - volumes[0].mean()) / volumes[0].std()
    np.testing.assert_allclose(features[0], net.eval()(brain[None]).flatten().detach(), rtol=1e-3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-4)
    torch.save({"state_dict": {"module.odd": torch.zeros(1)}}, tmp_path / "odd.pth")
    with pytest.raises(ContractError, match="weights do not fit the architecture"):
        load_medicalnet(tmp_path / "odd.pth", CPU)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ContractError, match=r"text\.pth: not a checkpoint"):
        load_medicalnet(tmp_path / "text.pth", CPU)


def test_frechet_distance_of_gaussians_is_known():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 3))
    y = 2 * generator.normal(size=(4000, 3)) + [1, 0, 0]
    assert frechet_distance(x, y) == pytest.approx(1 + 3 * (2 - 1) ** 2, rel=0.1)


def test_embedding_is_y_sem_of_the_posterior_mean(tmp_path, latents_path, ldae_path, caplog):
    latents, ldae = open_latents(latents_path), load_ldae(ldae_path, device=CPU)
    out = tmp_path / "semantics.zarr"
    assert embed_latents(latents, ldae, out, EmbedParams(batch_size=3), device=CPU) == 20
    written = OpenStore(out, kind="semantics").read("y_sem", 7)
    mean = latents.load(["sub-007"]).mean.float()
    expected = ldae.net.embed(ldae.net.diffusion.standardise(mean))[0]
    np.testing.assert_allclose(written, expected.detach().numpy(), atol=1e-4)
    assert embed_latents(latents, ldae, out, EmbedParams(), device=CPU) == 20
    assert "made anew" not in caplog.text
    other = dataclasses.replace(ldae, digest="another")
    embed_latents(latents, other, out, EmbedParams(), device=CPU)
    assert "semantics.zarr: y_sem of another LDAE, made anew" in caplog.text
