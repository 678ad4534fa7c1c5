"""Small heads of the template's brain, with a change that is known."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import load_template
from stages.cli import main
from tests.support.shrunken_brain import AFFINE, PARAMS, ball_atlas, shrunken


@pytest.fixture(scope="session")
def brain():
    template, inside = load_template(PARAMS)
    return (template * inside).astype(np.float32)


@pytest.fixture(scope="session")
def atlas():
    return ball_atlas()


@pytest.fixture
def made(tmp_path, brain):
    """What `manipulate` leaves of two scans at three scales."""
    folder = tmp_path / "made"
    folder.mkdir()
    for scan in ("sub-1_ses-M00", "sub-2_ses-M00"):
        outputs = []
        for scale, factor in ((0.0, 1.0), (1.0, 0.8)):
            name = f"{scan}_scale{scale:+.2f}_space-MNI152_T1w.nii.gz"
            nib.Nifti1Image(shrunken(brain, factor), AFFINE).to_filename(folder / name)
            outputs.append({"file": name, "scale": scale})
        document = {
            "command": "manipulate",
            "space": "mni",
            "scan_id": scan,
            "outputs": outputs,
            "remarks": ["diagnosis:AD: the probe is not shown to beat chance"],
        }
        (folder / f"{scan}_manipulate.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def atlas_files(tmp_path, atlas):
    image, table = tmp_path / "balls.nii.gz", tmp_path / "balls.tsv"
    nib.Nifti1Image(atlas.labels.astype(np.int16), atlas.affine).to_filename(image)
    table.write_text("index\tname\n1\tshrinks\n2\tstays\n")
    return image, table


@pytest.fixture
def run_pipeline(monkeypatch, capsys):
    """Run the command in this process; return exit code and all that it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out + printed.err

    return run
