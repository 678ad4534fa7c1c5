"""What `pipeline regions` refuses: one line that names the file and the remedy, and status 2."""

import nibabel as nib
import numpy as np
import pytest

from tests.support.repeated_visits import write_repeated


def one_line(outcome):
    code, text = outcome
    lines = [line for line in text.splitlines() if line.strip()]
    assert code == 2, text
    assert len(lines) == 1, text
    return lines[0]


@pytest.fixture
def of_atlas(run_pipeline, made, atlas_files, tmp_path):
    def run():
        image, table = atlas_files
        given = ["--atlas", image, "--labels", table]
        return run_pipeline("regions", "--made", made, *given, "--out", tmp_path / "out")

    return run


@pytest.fixture
def of_visits(run_pipeline, volumes, split, tmp_path):
    manifest = write_repeated(tmp_path, split)

    def run(*options):
        stores = ["--volumes", volumes.path, "--manifest", manifest]
        return run_pipeline("regions", *stores, *options, "--out", tmp_path / "out")

    return run


def test_an_atlas_of_another_space(of_atlas, atlas_files):
    image = nib.load(atlas_files[0])
    affine = image.affine.copy()
    affine[:3, 3] = 0
    nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(atlas_files[0])
    assert "balls.nii.gz" in (line := one_line(of_atlas()))
    assert "register it to MNI152" in line


def test_a_label_that_the_table_lacks(of_atlas, atlas_files):
    atlas_files[1].write_text("index\tname\n1\tshrinks\n")
    assert "label 2 of balls.nii.gz is not in it" in one_line(of_atlas())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--a", "sub-015"], "two visits are needed"),
        (["--a", "sub-016", "--b", "sub-015"], "6 months after --b sub-015"),
        (["--a", "sub-015", "--b", "sub-015"], "on one day"),
        (["--a", "sub-015", "--b", "sub-018"], "expected two visits of one person"),
        (["--a", "sub-015", "--b", "sub-999"], "sub-999: not in both"),
    ],
)
def test_visits_that_cannot_be_compared(of_visits, options, told):
    assert told in one_line(of_visits(*options))


def test_native_space_after_syn(of_visits, monkeypatch):
    monkeypatch.setattr("pipeline.regions.cases.registered_by_syn", lambda _: True)
    assert "keeps no way back to native space" in one_line(of_visits("--space", "native"))
