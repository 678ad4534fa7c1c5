"""The autoencoder judged: MS-SSIM against MONAI's, collapsed latents, shrunken ventricles."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics.regression import MultiScaleSSIMMetric
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from pipeline.evaluation.autoencoder import AutoencoderScorer, image_figures
from pipeline.metrics.posterior_statistics import LatentStatistics
from pipeline.metrics.ssim import ms_ssim, num_scales
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_autoencoder
from pipeline.report.render import load_context, render_report
from schemas.params import Params
from stages.cli import app
from tests.support.volumes import make_volumes, smooth_volume, subjects

CPU = torch.device("cpu")


def pair(shape=(44, 45, 46)):
    reference = torch.from_numpy(smooth_volume(1, shape))[None, None].float() / 255
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    return reference, (reference + 0.1 * noise * (reference > 0)).clamp(0, 1)


def test_ms_ssim_is_monais_over_the_volume_and_one_for_equals():
    reference, made = pair()
    brain = reference > 0
    assert num_scales((44, 45, 46)) == 3
    assert num_scales((128, 160, 128)) == 4
    assert num_scales((7, 8, 9)) >= 1
    published = np.array([0.0448, 0.2856, 0.3001])
    monai = MultiScaleSSIMMetric(
        spatial_dims=3, data_range=1.0, kernel_size=11, kernel_sigma=1.5,
        weights=list(published / published.sum()),
    )  # fmt: skip
    inside, whole = ms_ssim(reference, made, brain)
    assert whole == pytest.approx(float(monai(made, reference)), abs=1e-4)
    assert 0 < inside < 1
    assert ms_ssim(reference, reference, brain) == pytest.approx((1, 1))


def test_ms_ssim_inside_the_brain_ignores_what_lies_outside():
    reference, made = pair()
    brain = torch.zeros_like(reference, dtype=torch.bool)
    brain[..., :16] = True
    elsewhere = made.clone()
    elsewhere[..., 40:] = 0
    inside, whole = ms_ssim(reference, made, brain)
    again, hurt = ms_ssim(reference, elsewhere, brain)
    assert inside == pytest.approx(again, abs=0.02)
    assert hurt < whole - 0.02


def test_figures_of_a_scan_follow_their_definitions():
    reference, made = pair((20, 24, 22))
    brain = reference > 0
    figures = image_figures(reference, made, brain)
    error = (made - reference).numpy()
    assert figures["mse_whole"] == pytest.approx(float((error**2).mean()), rel=1e-5)
    assert figures["psnr_whole"] == pytest.approx(-10 * np.log10(figures["mse_whole"]), rel=1e-5)
    assert figures["mae_brain"] == pytest.approx(float(np.abs(error[brain.numpy()]).mean()))


def test_a_collapsed_channel_is_called_so():
    statistics = LatentStatistics()
    generator = torch.Generator().manual_seed(0)
    kls = []
    for _ in range(6):
        mean = torch.zeros(1, 2, 5, 6, 7)
        mean[:, 0] = 2 * torch.randn(5, 6, 7, generator=generator)
        logvar = torch.stack([torch.full((5, 6, 7), -4.0), torch.zeros(5, 6, 7)])[None]
        kls.append(statistics.add(mean, logvar))
    alive, dead = statistics.summary()
    assert (alive["collapsed"], dead["collapsed"]) == (False, True)
    assert alive["std"] == pytest.approx(2, abs=0.1)
    assert alive["between_scans"] == pytest.approx(2 * np.sqrt(5 / 6), abs=0.1)
    assert alive["posterior_std"] == pytest.approx(np.exp(-2))
    expected = 0.5 * (4 + np.exp(-4) + 4 - 1)
    assert alive["kl_per_voxel"] == pytest.approx(expected, rel=0.05)
    assert alive["kl"] == pytest.approx(float(np.mean([k[0] for k in kls])))


class Blur:
    """An autoencoder that loses fine detail, more of it with every pass."""

    def encode(self, x):
        return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 1, 1, 1))), torch.zeros_like(x)

    def decode(self, latent):
        return latent


@pytest.mark.slow
def test_drift_grows_pass_by_pass_and_a_filled_ventricle_is_an_error(tmp_path, autoencoder_path):
    store = make_volumes(tmp_path / "v.zarr", subjects(2))
    frozen = load_autoencoder(autoencoder_path, device=CPU)
    object.__setattr__(frozen, "net", Blur())
    scorer = AutoencoderScorer(autoencoder=frozen, volumes=store, device=CPU)
    figures = scorer.score_reconstruction("sub-001")
    drift = [figures[f"drift_mse_brain_{i}"] for i in range(1, 6)]
    assert all(a < b for a, b in pairwise(drift))
    assert drift[0] == pytest.approx(figures["mse_brain"])
    grid = store.attributes.grid
    affine = np.array(grid.affine)
    affine[:3, 3] = [-24, -36, -8]
    moved = grid.model_copy(update={"affine": affine.tolist()})
    store.attributes = store.attributes.model_copy(update={"grid": moved})
    tissue = torch.full((1, 1, *grid.shape), 0.55)
    tissue[..., :10, 8:22, 3:13] = 0.8  # white matter around the ventricles
    ventricles = tissue.clone()
    ventricles[..., 3:7, 12:18, 6:10] = 0.05
    half = ventricles.clone()
    half[..., 3:7, 12:18, 6:8] = 0.8
    for made, expected in ((ventricles, 0), (half, -0.5), (tissue, -1)):
        figures = scorer._ventricles(ventricles, made)
        assert figures["ventricle_error"] == pytest.approx(expected)
        assert figures["ventricle_ml"] == pytest.approx(4 * 6 * 4 * 0.027, rel=1e-3)


@pytest.mark.slow
def test_the_command_writes_parquet_json_and_a_picture(
    tmp_path, volumes, split, autoencoder_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"scan_id": s, "subject_id": s, "session_id": "", "path": f"{s}.nii", "source_digest": s,
         "age_years": 60, "sex": "F", "diagnosis": "", "months_from_first": 0, "split": name}
        for name, ids in split.items() for s in ids
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv("manifest.csv", index=False)
    result = CliRunner().invoke(
        app,
        ["evaluate", "--what", "ae", "--manifest", "manifest.csv", "--volumes", str(volumes.path),
         "--ae", str(autoencoder_path), "--out", "reports/ae", "--device", "cpu",
         "--set", "evaluate.max_scans=5"],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert "LPIPS: left out" in result.output
    metrics = json.loads((tmp_path / "reports" / "ae" / "metrics.json").read_text())
    per_scan = pd.read_parquet(tmp_path / "reports" / "ae" / "per_scan.parquet")
    assert list(per_scan["scan_id"]) == split["test"][:5]
    for name in ("ssim", "ms_ssim", "psnr", "mse"):
        for where in ("brain", "whole"):
            estimate = metrics["reconstruction"][f"{name}_{where}"]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["value"] == pytest.approx(per_scan[f"{name}_{where}"].mean())
    assert len(metrics["latent"]) == 3
    assert "kl_channel_2" in per_scan
    assert {"drift_ssim_brain_1", "drift_ssim_brain_5"} <= set(metrics["drift"])
    assert metrics["speed"]["encode_scans_per_second"] > 0
    assert metrics["peak_memory_gib"] > 0
    assert metrics["autoencoder"] == read_artefact(autoencoder_path, kind="ae").digest
    assert (tmp_path / "reports" / "ae" / "error_map.png").read_bytes()[:4] == b"\x89PNG"
    context = load_context(
        params=Params(), manifest=tmp_path / "manifest.csv", evaluate=tmp_path / "reports" / "none"
    )
    render_report(context, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "The autoencoder alone" in page
    assert "Mean error of the autoencoder" in page


def test_the_study_needs_its_latents(tmp_path, volumes, autoencoder_path):
    result = CliRunner().invoke(
        app,
        ["evaluate", "--manifest", "m.csv", "--volumes", str(volumes.path), "--ae",
         str(autoencoder_path), "--out", str(tmp_path)],
    )  # fmt: skip
    assert "--latents and --ldae are needed" in str(result.exception)
