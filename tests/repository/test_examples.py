"""The example scripts run on a finished study."""

import runpy
import sys
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest

from tests.support.paths import ROOT
from tests.support.tiny_study import TINY

EXAMPLES = ROOT / "examples"


@pytest.mark.slow
def test_latents_in_python(tiny_study, tmp_path, monkeypatch, capsys):
    arguments = ["latents_in_python.py", str(tiny_study), "--out", str(tmp_path), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLES / "latents_in_python.py"), run_name="__main__")
    table = pd.read_csv(tmp_path / "y_sem.csv", dtype={"scan_id": str})
    manifest = pd.read_csv(tiny_study / "data" / "cohort" / "manifest.csv")
    assert len(manifest) > 5
    assert set(table["scan_id"]) == set(manifest["scan_id"])
    assert {"age_years", "y_sem_0", "y_sem_15"} <= set(table)
    images = sorted(tmp_path.glob("*.nii.gz"))
    assert len(images) == 3
    shape = tuple(TINY["preprocess.grid.shape"])
    assert {nib.load(image).shape for image in images} == {shape}
    assert "mean error" in capsys.readouterr().out


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    assert {p.name for p in EXAMPLES.glob("*.py")} == {
        p.name for p in EXAMPLES.glob("*.py") if f'"{p.name}"' in text
    }
