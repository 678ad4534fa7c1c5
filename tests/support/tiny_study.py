"""A whole study on eight tiny phantom subjects, made once (`made_once`).

Enough for a probe of the diagnosis: two subjects of each class to fit on, both classes in test,
where one of them comes three times, so that there is a middle visit to judge.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import environment

BIN = Path(sys.executable).parent
TINY = {
    "cohort.phantom.subjects": 8,
    "cohort.phantom.seed": 24,
    "cohort.phantom.zooms": 4.0,
    "cohort.split.seed": 0,
    "cohort.split.train": 0.5,
    "cohort.split.val": 0.17,
    "preprocess.grid.shape": [24, 32, 24],
    "preprocess.grid.zooms": 8.0,
    "preprocess.registration_zooms": 6.0,
    "autoencoder.source": "train",
    "train_ae.steps": 8,
    "train_ae.channels": [8],
    "train_ldm.steps": 6,
    "train_ldm.batch_size": 2,
    "train_ldm.denoiser.base_channels": 8,
    "train_ldae.steps": 6,
    "train_ldae.batch_size": 2,
    "train_ldae.encoder.channels": [8, 16],
    "train_ldae.encoder.dim": 16,
    "train_ldae.encoder.tissue_steps": 10,
    "evaluate.num_inference_steps": 3,
    "evaluate.bootstrap": 20,
    "evaluate.other_steps": [2],
    "evaluate.draws": 2,
    "evaluate.generation.count": 2,
    "evaluate.voxel_dae.train_ldm.steps": 2,
    "evaluate.voxel_dae.train_ldm.denoiser.base_channels": 8,
    "evaluate.voxel_dae.train_ldm.denoiser.multipliers": [1, 2],
    "evaluate.voxel_dae.train_ldm.denoiser.attention_levels": [1],
    "evaluate.voxel_dae.train_ldae.steps": 2,
    "evaluate.voxel_dae.train_ldae.encoder.dim": 16,
    "probe.bootstrap": 20,
    "probe.repeats": 1,
    "probe.permutations": 3,
}
TINY_OPTIONS = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
FIRST_RUN = "first_run.txt"
"""Beside the study: what `dvc repro` printed when it made it."""


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command with this environment's programs and this checkout's code."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        check=False,
    )


def repro(study: Path) -> str:
    """Run `dvc repro` and return what it printed."""
    result = run("dvc", "repro", cwd=study)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def make_tiny_study(folder: Path) -> Path:
    """Return the finished study under `folder`."""
    result = run("pipeline", "init", "study", *TINY_OPTIONS, cwd=folder)
    assert result.returncode == 0, result.stderr
    (folder / FIRST_RUN).write_text(repro(folder / "study"))
    return folder / "study"
