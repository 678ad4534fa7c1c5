"""What a command may import: a refusal waits for no network, and each room for what it uses."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SLOW = ("torch", "lightning", "monai", "matplotlib", "sklearn", "scipy", "nibabel", "dask")
LATENTS = ("--latents", "nowhere.zarr")
MADE = ("--ae", "a", "--ldae", "b", "--out", "out")
REFUSED = {
    "train-ae": ("--manifest", "m.csv", "--volumes", "nowhere.zarr", "--out", "out"),
    "encode": ("--input", "nowhere.zarr", "--out", "out"),
    "train-ldm": (*LATENTS, "--out", "out"),
    "train-ldae": (*LATENTS, "--out", "out"),
    "embed": (*LATENTS, "--out", "out"),
    "crossfit": (*LATENTS, "--manifest", "m.csv", "--ldae", "b", "--out", "o",
                 "--set", "crossfit.folds=2"),
    "probe": ("--manifest", "m.csv", "--semantics", "nowhere.zarr", "--out", "out"),
    "evaluate": ("--manifest", "m.csv", "--volumes", "nowhere.zarr", *LATENTS,
                 "--ldae", "b", "--out", "out"),
    "report": ("--manifest", "nowhere.csv", "--out", "out.html"),
    "reconstruct": ("--scan", "x", *LATENTS, *MADE),
    "vary": ("--scan", "x", *LATENTS, *MADE),
    "manipulate": ("--scan", "x", "--direction", "diagnosis:AD", *LATENTS, "--out", "out"),
    "interpolate": ("--a", "x", "--b", "y", *LATENTS, *MADE),
}  # fmt: skip
"""Commands to arguments that name a store or table which is not there."""

MAY_IMPORT = {
    "pipeline.training.latent_diffusion": {"torch"},
    "pipeline.training.autoencoder": {"torch"},
    "pipeline.encoding.embed": {"torch"},
    "pipeline.crossfit.run": {"torch", "scipy"},
    "pipeline.applications.runner": {"torch", "nibabel", "scipy"},
    "pipeline.applications.nifti.output_files": {"torch", "nibabel", "scipy"},
    "pipeline.evaluation.evaluate": {"torch", "nibabel", "scipy", "sklearn"},
    "pipeline.probes.feature_sets": {"torch", "nibabel", "scipy", "sklearn"},
    "pipeline.probes.protocols": {"scipy", "sklearn"},
    "pipeline.report.render": {"matplotlib", "scipy"},
}
"""What a command's work brings of SLOW before it begins; the rest comes when it is used."""


def imported_by(code: str, *arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Return which of SLOW a fresh process has imported after `code`, and the process."""
    told = f"{code}\nprint('\\nslow', *sorted(set({SLOW!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{told}", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:]), done


@pytest.mark.parametrize("command", REFUSED)
def test_a_refusal_is_one_line_and_waits_for_nothing_slow(command):
    code = (
        "from stages.cli import main\ntry: main()\nexcept SystemExit as end: assert end.code == 2"
    )
    slow, done = imported_by(code, command, *REFUSED[command])
    assert not slow
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: nowhere.")


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_what_a_command_works_with_brings_no_more_than_it_uses(module):
    slow, _ = imported_by(f"import {module}")
    assert slow <= MAY_IMPORT[module]


def test_monai_and_lightning_are_not_waited_for_by_the_autoencoders_folder():
    code = """
import torch
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.frozen import load_autoencoder
model = load_autoencoder(bundled_autoencoder(), device=torch.device("cpu"), at_use=True)
print(model.latent_shape(model.grid.shape))
"""
    slow, done = imported_by(code)
    assert slow == {"torch"}
    assert "(8, 16, 20, 16)" in done.stdout
