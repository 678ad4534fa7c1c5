"""Several processes train as one."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from pipeline.models.artefact import read_artefact
from pipeline.training.distributed import Processes, processes
from stages.cli import app
from tests.support.slurm import SLURM


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, latents_path):
    """`train-ldae` alone, both stages, under torchrun on the CPU."""
    options = [
        "--latents", str(latents_path),
        "--device", "cpu",
        "--set", "train_ldm.steps=3", "--set", "train_ldae.steps=3",
        "--set", "train_ldm.batch_size=4", "--set", "train_ldae.batch_size=4",
        "--set", "train_ldm.precision=fp32", "--set", "train_ldae.precision=fp32",
        "--set", "train_ldm.denoiser.base_channels=8",
        "--set", "train_ldm.denoiser.multipliers=[1,2]",
        "--set", "train_ldm.denoiser.attention_levels=[1]",
        "--set", "train_ldae.encoder.channels=[8,16]",
        "--set", "train_ldae.encoder.tissue_modes=0",
    ]  # fmt: skip
    command = ["train-ldae", *options, "--out"]
    alone = CliRunner().invoke(app, [*command, str(tmp_path / "one" / "ldae")])
    assert alone.exit_code == 0, alone.output
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", "stages.cli", *command, str(tmp_path / "two" / "ldae")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.glob("*/*.training"))
    for folder, kind in (("ldae-ldm", "ldm"), ("ldae", "ldae")):
        one, two = (read_artefact(tmp_path / n / folder, kind=kind) for n in ("one", "two"))
        # Not every weight: where its gradient is zero but for rounding, Adam takes a whole step.
        assert one.tensors.keys() == two.tensors.keys()
        far = [
            ~torch.isclose(two.tensors[name], tensor, atol=2e-5, rtol=1e-3).flatten()
            for name, tensor in one.tensors.items()
        ]
        assert torch.cat(far).float().mean() < 0.01
        curves = [pd.read_csv(tmp_path / n / folder / "log.csv") for n in ("one", "two")]
        pd.testing.assert_frame_equal(
            *(c.drop(columns="seconds") for c in curves), atol=1e-4, rtol=1e-3
        )


def test_processes_are_those_of_the_slurm_step_not_of_its_job(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}).items():
        monkeypatch.setenv(name, value)
    assert processes() == Processes()  # the batch script itself
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert processes() == Processes(rank=3, size=4, local_rank=1, local_size=2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert processes() == Processes()
