"""Cheap brains and the real command over them, in processes of their own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.imaging.atlas.mni152 import grid_affine, load_template
from schemas.grid import GridParams
from tests.support.paths import ROOT

CHEAP = (
    "brain_mask=none",
    "bias_field=false",
    "registration_zooms=6",
    "grid.shape=[28,32,28]",
    "grid.zooms=6",
)
"""Preprocessing that takes a second a scan, registration and all."""


def save_brain(path: Path, seed: int) -> Path:
    """Write the template brain, shifted, textured and on a grid that is not the target's."""
    rng = np.random.default_rng(seed)
    grid = GridParams(shape=(50, 62, 52), zooms=3.5)
    volume, inside = load_template(grid)
    data = np.where(inside, 200 + 800 * volume + rng.normal(0, 30, volume.shape), 0)
    affine = grid_affine(grid)
    affine[:3, 3] += rng.uniform(-8, 8, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.int16), affine), path)
    return path


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process that imports this checkout.

    One thread: on some processors their number decides the last bits of latents.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | more


def collect(source: Path, out: Path) -> Path:
    """Run `pipeline cohort`; returns the manifest."""
    command = [sys.executable, "-m", "stages.cli", "cohort", "--quiet", "--input", str(source)]
    subprocess.run([*command, "--out", str(out)], env=environment(), check=True)
    return out / "manifest.csv"


def preprocess_command(manifest: Path, out: Path, *options: str) -> list[str]:
    """Return the `pipeline preprocess` command with cheap parameters."""
    tables = {"--qc": out.with_suffix(".qc.csv"), "--quarantine": out.with_suffix(".q.csv")}
    paths = {"--manifest": manifest, "--out": out} | tables
    named = [text for name, path in paths.items() for text in (name, str(path))]
    chosen = [text for value in CHEAP for text in ("--set", f"preprocess.{value}")]
    return [sys.executable, "-m", "stages.cli", "preprocess", *named, *chosen, *options]


def store_digest(store: Path) -> str:
    """Return the digest of every file of a store, names included."""
    digest = hashlib.sha256()
    for file in sorted(p for p in store.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(store)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
