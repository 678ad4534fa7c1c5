"""The diffusion autoencoder in voxel space beside the LDAE."""

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.evaluation.draws import DrawnBrains
from pipeline.evaluation.reconstruction import (
    Scan,
    evaluate_reconstruction,
    reconstruct_all,
)
from pipeline.models.inference import load_voxel_models
from pipeline.models.reconstruction_speed import ROUNDS
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams
from stages.cli import app
from tests.support.tiny_models import CPU


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
    how = EvaluateParams(num_inference_steps=4, batch_size=2, precision="fp32")
    voxels = load_voxel_models(out, volumes.attributes.grid, how, device=CPU)
    both = dataclasses.replace(study, voxel_dae=voxels)
    made, _ = reconstruct_all(both, [Scan("sub-016", "a", (), 0)], DrawnBrains(both))
    assert made["voxel_dae"].shape == made["voxel_dae_y_sem_only"].shape == (1, 16, 24, 20)
    part = evaluate_reconstruction(dataclasses.replace(study, voxel_dae=voxels))
    pace = part.metrics["throughput"]
    medians = {name: np.median(seconds) for name, seconds in pace["seconds"].items()}
    assert pace["faster"]["ldae"] == pytest.approx(medians["voxel_dae"] / medians["ldae"])
    assert all(len(seconds) == ROUNDS for seconds in pace["seconds"].values())
    with pytest.raises(ContractError, match="an LDAE of latents"):
        load_voxel_models(ldae_path, volumes.attributes.grid, how, device=CPU)
    other = volumes.attributes.grid.model_copy(update={"shape": (8, 8, 8)})
    with pytest.raises(ContractError, match="trained on volumes of"):
        load_voxel_models(out, other, how, device=CPU)
