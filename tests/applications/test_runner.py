"""A batch of scans: what is done, kept from an earlier run, or left out."""

import dataclasses
import json

import pytest

from pipeline.applications.inputs import (
    identity_of_file,
)
from pipeline.applications.manipulate import manipulate
from pipeline.applications.nifti.output_files import Writer
from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.runner import run_batch, run_pair
from pipeline.applications.scan_names import check_names
from pipeline.applications.time_points import InterpolationPoints
from pipeline.applications.vary import vary
from pipeline.models.inference import LdaeInference
from schemas.errors import ContractError, ParamsError
from schemas.params import PreprocessParams
from tests.support.volumes import OTHER, SCAN


@pytest.mark.slow
def test_two_scans_of_one_name_would_write_the_same_files(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    with pytest.raises(ParamsError, match="given twice"):
        run_batch([SCAN, SCAN], opener, writer, lambda s: reconstruct(models, s.z_0))
    check_names([SCAN, SCAN], opener.latents)  # a pair has one set of files


@pytest.mark.slow
def test_scans_made_already_are_kept(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="vary", space="mni", models=models)
    applied = []

    def run(names, *, seed=0, writer=writer):
        applied.clear()

        def apply(source):
            applied.append(source.scan_id)
            return vary(models, source.z_0, name=source.scan_id, count=2, seed=seed)

        assert not run_batch(names, opener, writer, apply, options={"count": 2, "seed": seed})
        return applied

    assert run([SCAN]) == [SCAN]
    assert run([SCAN, OTHER]) == [OTHER]
    assert run([SCAN, OTHER]) == []
    next(tmp_path.glob(f"{OTHER}_vary-1*.nii.gz")).unlink()
    assert run([SCAN, OTHER]) == [OTHER], "a file is gone"
    (tmp_path / f"{SCAN}_vary.json").write_text("{")
    assert run([SCAN, OTHER]) == [SCAN], "its record is cut off"
    assert run([SCAN], seed=1) == [SCAN], "another option"
    slower = dataclasses.replace(models, num_inference_steps=7)
    assert run([SCAN], seed=1, writer=dataclasses.replace(writer, models=slower)) == [SCAN]


@pytest.mark.slow
def test_a_pair_made_already_is_kept(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="interpolate", space="mni", models=models)

    def made(alphas, **options):
        return run_pair(
            SCAN, OTHER, opener, writer, InterpolationPoints(alphas, None, {}), **options
        )[1]

    assert made([0.25, 0.5])
    assert not made([0.25, 0.5])
    assert made([0.25])
    assert made([0.25], detail=True)
    assert not made([0.25], detail=True)
    next(tmp_path.glob("*alpha0.25*.nii.gz")).unlink()
    assert made([0.25], detail=True), "a file is gone"


@pytest.mark.slow
def test_an_image_made_already_is_kept_until_it_changes(tmp_path, models, opener, monkeypatch):
    import pipeline.applications.runner as batch

    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"one")
    opened = []

    def scan_from_file(path, models, params):
        opened.append(path)
        source = opener.open(SCAN)
        record = identity_of_file(path, params) | {"qc": {"status": "pass"}}
        return dataclasses.replace(source, scan_id="head", record=record)

    monkeypatch.setattr(batch, "preprocessing_for", lambda *_, **__: PreprocessParams())
    monkeypatch.setattr(batch, "scan_from_file", scan_from_file)
    writer = Writer(out=tmp_path / "made", command="reconstruct", space="mni", models=models)
    for content, times in ((b"one", 1), (b"one", 1), (b"two", 2)):
        path.write_bytes(content)
        assert not run_batch([str(path)], opener, writer, lambda s: reconstruct(models, s.z_0))
        assert len(opened) == times


@pytest.mark.slow
def test_scale_0_of_a_manipulation_is_made_once(tmp_path, monkeypatch, opener, models, direction):
    rows, sample = [], LdaeInference.sample

    def counting(self, y_sem, x_T):
        rows.append(len(x_T))
        return sample(self, y_sem, x_T)

    monkeypatch.setattr(LdaeInference, "sample", counting)
    writer = Writer(out=tmp_path, command="manipulate", space="mni", models=models)
    scales = (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert not run_batch(
        [SCAN], opener, writer, lambda s: manipulate(models, s.z_0, direction, scales)
    )
    assert sum(rows) == len(scales)
    outputs = json.loads(writer.document(SCAN).read_text())["outputs"]
    assert [output["scale"] for output in outputs] == list(scales)


@pytest.mark.slow
def test_a_single_scan_shows_progress_by_sampler_steps(
    monkeypatch, caplog, opener, models, tmp_path
):
    """Minutes on a processor; with several scans, the scans are counted."""
    monkeypatch.setattr("pipeline.runtime.progress.Progress.seconds_between_lines", -1.0)
    watched = dataclasses.replace(models, watched=True)
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=watched)
    with caplog.at_level("INFO"):
        run_batch([SCAN], opener, writer, lambda s: reconstruct(watched, s.z_0))
    steps = models.num_inference_steps
    assert f"x_T by inversion {steps}/{steps}" in caplog.text
    assert f"sampling {steps}/{steps}" in caplog.text


@pytest.mark.slow
def test_one_bad_scan_does_not_stop_a_batch(tmp_path, monkeypatch, opener, models):
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(b"no image")
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    names = [str(path), SCAN]
    assert run_batch(names, opener, writer, lambda s: reconstruct(models, s.z_0)) == [str(path)]
    assert (tmp_path / f"{SCAN}_reconstruct.json").is_file()


@pytest.mark.slow
def test_images_left_over_from_an_earlier_run_are_named(models, opener, tmp_path, caplog):
    writer = Writer(out=tmp_path, command="vary", space="mni", models=models)

    def variations(count):
        return lambda source: vary(models, source.z_0, name=source.scan_id, count=count, seed=0)

    for count in (2, 1):
        run_batch([SCAN], opener, writer, variations(count), options={"count": count})
    assert "of the former run 1 image(s) stay" in caplog.text
    assert "vary-2" in caplog.text


@pytest.mark.slow
def test_the_folder_is_tried_before_any_work(models, opener, tmp_path):
    (tmp_path / "file").touch()
    blocked = Writer(out=tmp_path / "file", command="vary", space="mni", models=models)

    def never(source):
        raise AssertionError(source)

    with pytest.raises(ContractError, match="file: a file is where a folder is wanted"):
        run_batch([SCAN], opener, blocked, never)
