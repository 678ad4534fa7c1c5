"""Images and records that applications write."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.applications.generate import NewBrains, generate
from pipeline.applications.generated_volumes import numbered
from pipeline.applications.manipulate import manipulate
from pipeline.applications.nifti.output_files import Writer
from pipeline.applications.runner import run_batch
from schemas.errors import ParamsError
from tests.support.volumes import OTHER, SCAN, SHAPE


@pytest.mark.slow
def test_files_say_what_was_done(tmp_path, opener, models, direction):
    writer = Writer(out=tmp_path, command="manipulate", space="mni", models=models)
    failed = run_batch(
        [SCAN, OTHER], opener, writer, lambda s: manipulate(models, s.z_0, direction, (-1.0, 1.0))
    )
    assert not failed
    record = json.loads((tmp_path / f"{SCAN}_manipulate.json").read_text())
    assert record["models"]["ldae"] == models.ldae.digest
    assert (record["sampler"], record["num_inference_steps"]) == ("dpm", 6)
    assert [output["scale"] for output in record["outputs"]] == [-1, 1]
    image = nib.load(tmp_path / record["outputs"][0]["file"])
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, models.autoencoder.grid.affine)
    assert int(image.header["sform_code"]) == 4
    assert (tmp_path / record["picture"]).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_volumes_are_made_a_batch_at_a_time(tmp_path, monkeypatch, models):
    """So a thousand of them need the memory of one batch."""
    outcome = generate(models, count=5, seed=3, prior=None)
    asked, generate_rows = [], NewBrains.generate

    def counting(self, rows):
        asked.append(len(range(5)[rows]))
        return generate_rows(self, rows)

    monkeypatch.setattr(NewBrains, "generate", counting)
    few = dataclasses.replace(models, batch_size=2)
    writer = Writer(out=tmp_path, command="generate", space="mni", models=few)
    writer.write(outcome, stem="seed-3", record={})
    assert asked == [2, 2, 1]
    last = nib.load(tmp_path / "seed-3_generate-5_space-MNI152_T1w.nii.gz")
    np.testing.assert_allclose(last.get_fdata(), outcome.volumes[4], atol=1e-4)


@pytest.mark.slow
def test_brains_made_already_are_kept(tmp_path, models):
    writer = Writer(out=tmp_path, command="generate", space="mni", models=models)
    for count, expected in ((2, True), (2, False), (3, True)):
        outcome = generate(models, count=count, seed=3, prior=None)
        record = {"options": {"count": count, "seed": 3, "prior": None}}
        _, written = writer.write_once(outcome, stem="seed-3", record=record)
        assert written is expected
    assert not (writer.out / "seed-3_generate-4_space-MNI152_T1w.nii.gz").exists()


@pytest.mark.slow
def test_directions_seeds_and_spaces_share_a_folder(tmp_path, models):
    writer = Writer(out=tmp_path, command="generate", space="mni", models=models)
    made = [
        dataclasses.replace(writer, variant=variant).write_once(
            generate(models, count=1, seed=3, prior=None), stem="seed-3", record={}
        )
        for variant in ("", "prior", "", "prior")
    ]
    assert [written for _, written in made] == [True, True, False, False]
    assert len(list(tmp_path.glob("*.nii.gz"))) == len(list(tmp_path.glob("*.json"))) == 2
    native = dataclasses.replace(writer, space="native").document("sub-1")
    assert native.name == "sub-1_generate_space-native.json"


def test_labels_tell_close_values_apart():
    assert numbered("alpha", [0.5, 1], digits=3) == ["alpha0.500", "alpha1.000"]
    assert numbered("scale", [0, 0.005, 0.01], digits=2, sign="+")[1] == "scale+0.005"
    with pytest.raises(ParamsError, match=r"scale: 2 is given twice"):
        numbered("scale", [1, 2, 2], digits=2)
