"""Signals to stop: the step under way is kept, and nobody else's weights are taken."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import pipeline.training.latent_diffusion as stages
from pipeline.models.artefact import read_artefact
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from schemas.diffusion import TrainLdmParams
from tests.support.command_line import environment
from tests.support.slurm import SLURM
from tests.support.tiny_models import CPU

LDM = TrainLdmParams(
    steps=12,
    batch_size=4,
    checkpoint_every=4,
    precision="fp32",
    denoiser={"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]},
)


ODD = LDM.model_copy(update={"steps": 11})
"""Its last step ends no interval."""


OPTIONS = [
    "--device", "cpu", "--set", "train_ldm.batch_size=4", "--set", "train_ldm.checkpoint_every=4",
    "--set", "train_ldm.precision=fp32", "--set", "train_ldm.denoiser.base_channels=8",
    "--set", "train_ldm.denoiser.multipliers=[1,2]",
    "--set", "train_ldm.denoiser.attention_levels=[1]",
]  # fmt: skip


@pytest.fixture
def train(tmp_path, latents_path, split):
    """Train stage 1 into a folder of tmp_path; return its artefact."""

    def run(name, params=LDM):
        store = open_latents(latents_path)
        stages.train_denoiser(store, split, params, tmp_path / name, device=CPU)
        return read_artefact(tmp_path / name, kind="ldm")

    return run


def step_of(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True, mmap=True)["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "params", "stop"),
    [
        (signal.SIGINT, LDM, 6),
        (signal.SIGINT, LDM, LDM.checkpoint_every - 1),
        (signal.SIGINT, LDM, LDM.steps - 1),
        (signal.SIGTERM, ODD, ODD.steps - 1),
        (signal.SIGTERM, LDM, 5),
        (signal.SIGUSR1, LDM, 7),
    ],
)
def test_a_signal_to_stop_keeps_the_step_under_way(
    tmp_path, monkeypatch, caplog, train, number, params, stop
):
    """Within an interval, at its end, in the last step; what is resumed equals a whole run."""
    compute, before = DenoiserModule.compute_losses, signal.getsignal(number)

    def sent(self, now):
        if now == stop:
            signal.raise_signal(number)
            if number != signal.SIGINT:
                signal.raise_signal(number)  # a cluster repeats it
        return compute(self, now)

    whole = train("whole", params)
    monkeypatch.setattr(DenoiserModule, "compute_losses", sent)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
        train("cut", params)
    if number == signal.SIGINT:
        assert raised.type is KeyboardInterrupt
    else:
        assert raised.value.code == 128 + number
        assert f"stopped by {number.name} after step {stop + 1}" in caplog.text
    assert signal.getsignal(number) == before
    assert step_of(tmp_path / "cut.training") == stop + 1
    assert not (tmp_path / "cut" / "config.json").exists()
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    with caplog.at_level("INFO"):
        resumed = train("cut", params)
    assert f"resuming at step {stop + 1}" in caplog.text
    assert resumed.digest == whole.digest
    curves = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*(curve.drop(columns="seconds") for curve in curves))


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch, train):
    compute, seen = DenoiserModule.compute_losses, []

    def pressed(self, now):
        seen.append(now)
        if now == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return compute(self, now)

    monkeypatch.setattr(DenoiserModule, "compute_losses", pressed)
    with pytest.raises(KeyboardInterrupt):
        train("cut")
    assert seen[-1] == 5
    assert step_of(tmp_path / "cut.training") == 4


@pytest.mark.slow
@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}])
def test_nobody_elses_checkpoint_is_taken_in_a_slurm_job(
    tmp_path, monkeypatch, recwarn, train, step
):
    """Lightning restores hpc_ckpt_N.ckpt of the working folder where SLURM's variables are set."""
    whole = train("whole")
    other = LDM.model_copy(update={"seed": 1})
    monkeypatch.setattr("pipeline.training.lightning_run.discard_checkpoints", lambda _: None)
    train("other", other)
    monkeypatch.undo()
    (tmp_path / "other.training" / "last.ckpt").rename(tmp_path / "hpc_ckpt_3.ckpt")
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    for name, value in (SLURM | step).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert train("fresh").digest == whole.digest
    assert not recwarn.list
    assert sorted(p.name for p in tmp_path.glob("hpc_ckpt*")) == ["hpc_ckpt_3.ckpt"]


SENT_TO_ONE = """
import os, signal, sys
import pipeline.training.latent_diffusion as stages
from pipeline.training.latent_modules import DenoiserModule
from pipeline.training.distributed import processes
from stages.cli import main

compute = DenoiserModule.compute_losses

def sent(self, now):
    if now == 5 and processes().rank == 1 and "SEND" in os.environ:
        signal.raise_signal(signal.SIGTERM)
    return compute(self, now)

DenoiserModule.compute_losses = sent
main()
"""


def command(tmp_path: Path, latents_path: Path, steps: int) -> list[str]:
    out = ["--latents", str(latents_path), "--out", str(tmp_path / "ldm")]
    return ["train-ldm", *out, *OPTIONS, "--set", f"train_ldm.steps={steps}"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_two_processes_stop_after_the_same_step_where_one_is_asked(
    tmp_path, latents_path, launcher
):
    script = tmp_path / "train.py"
    script.write_text(SENT_TO_ONE)
    own = [sys.executable, str(script), *command(tmp_path, latents_path, 12)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(**more):
        if launcher == "torchrun":
            argv = [own[0], *torchrun, *own[1:]]
            done = subprocess.run(
                argv, env=environment(**more), capture_output=True, text=True, check=False
            )
            return done.returncode, done.stderr
        # A stand-in for srun: it sets what a task of a step finds, without --ntasks-per-node.
        step = SLURM | {"SLURM_STEP_ID": "2", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
        step |= {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "localhost"} | more
        tasks = [
            subprocess.Popen(
                own,
                env=environment(**step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}),
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        errors = [task.communicate(timeout=300)[1] for task in tasks]
        codes = {task.returncode for task in tasks}
        assert len(codes) == 1, errors
        return codes.pop(), errors[0]

    code, error = run(SEND="1")
    assert code not in (0, None), error
    assert launcher == "torchrun" or code == 128 + signal.SIGTERM, error
    assert "after step 6 of 12, which is kept" in error, error
    assert step_of(tmp_path / "ldm.training") == 6
    code, error = run()
    assert code == 0, error
    assert "resuming at step 6 of 12" in error
    assert read_artefact(tmp_path / "ldm", kind="ldm").config["metrics"]["step"] == 12


def wait_for(condition, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_manager_s_signal_to_dvc_repro_keeps_the_step(tmp_path, latents_path):
    """As docs/cluster.md says: dvc ignores the signal, the training beneath it does not."""
    words = [sys.executable, "-m", "stages.cli", *command(tmp_path, latents_path, 100_000)]
    line = " ".join(f"'{word}'" for word in words)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{train: {{cmd: {line!r}}}}}\n".replace("\\", ""))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    job = subprocess.Popen(
        ["sh", "-c", 'trap "" TERM; exec "$@"', "sh", *dvc, "repro"],
        cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wait_for((tmp_path / "ldm.training" / "last.ckpt").is_file)
    os.killpg(job.pid, signal.SIGTERM)
    error = job.communicate(timeout=120)[1]
    assert job.returncode not in (0, -signal.SIGTERM), error
    assert "which is kept" in error
    assert step_of(tmp_path / "ldm.training") >= 4  # 4 where the signal fell between two steps
