"""Features of the random network: computed once a volume, kept, and taken by the probe."""

import importlib.util
import shutil

import numpy as np
import pandas as pd
import pytest
import uncnn
from typer.testing import CliRunner

from pipeline.encoding.uncnn_features import AFFINE, SHAPE, write_uncnn_features
from pipeline.probes.linear import fit_linear
from pipeline.probes.rivals import read_rivals
from pipeline.runtime.devices import resolve_device
from pipeline.stores.volumes import open_volumes, write_volumes
from schemas.errors import ParamsError
from stages.cli import app
from tests.support.volumes import make_volumes, subjects, volume_attributes, volume_row

CPU = resolve_device("cpu")


@pytest.fixture
def seen(monkeypatch):
    """Images that the network was given; its features are their mean and middle."""
    images = []

    def features(path, **_):
        image = uncnn.nib.load(path)
        images.append(image)
        data = image.get_fdata()
        return np.array([[data.mean(), data[45, 63, 36], 3.0]])

    monkeypatch.setattr(uncnn, "extract_features", features)
    monkeypatch.setattr(uncnn, "load_model", lambda **_: None)
    return images


def test_a_row_a_scan_that_the_probe_reads_as_a_rival(tmp_path, seen):
    volumes = make_volumes(tmp_path / "volumes.zarr", subjects(3))
    assert write_uncnn_features(volumes, tmp_path / "uncnn.csv", device=CPU) == 3
    table = pd.DataFrame({"scan_id": list(reversed(subjects(3)))})
    features, lines = read_rivals({"uncnn": tmp_path / "uncnn.csv"}, table, ["y_sem"])
    assert not lines
    first = seen[0]
    assert first.shape == SHAPE
    np.testing.assert_array_equal(first.affine, AFFINE)
    expected = [first.get_fdata().mean(), first.get_fdata()[45, 63, 36], 3.0]
    np.testing.assert_allclose(features["uncnn"][2], expected, rtol=1e-6)


def test_a_voxel_is_where_the_template_has_it(tmp_path, seen):
    """World 12, 15, 9 mm is a voxel of both grids."""
    row = volume_row(0)
    row.volume[:] = 0
    row.volume[4, 5, 3] = 200
    write_volumes(tmp_path / "volumes.zarr", volume_attributes(["a"]), iter([row]))
    write_uncnn_features(open_volumes(tmp_path / "volumes.zarr"), tmp_path / "u.csv", device=CPU)
    brightest = np.unravel_index(seen[0].get_fdata().argmax(), SHAPE)
    place = AFFINE @ [*brightest, 1]
    assert np.abs(place[:3] - [12, 15, 9]).max() <= 1


def test_rows_are_kept_and_only_what_changed_is_computed(tmp_path, seen):
    scans, out = subjects(3), tmp_path / "uncnn.csv"
    volumes = make_volumes(tmp_path / "one.zarr", scans[:2])
    write_uncnn_features(volumes, out, device=CPU)
    whole = out.read_text().splitlines()
    more = make_volumes(tmp_path / "two.zarr", scans)
    # An interrupted run left a torn line; the finished table lost its second scan.
    out.write_text("\n".join(whole[:2]) + "\n")
    (tmp_path / ".uncnn.csv.work").write_text(f"{scans[2]},torn")
    assert write_uncnn_features(more, out, device=CPU) == 2
    assert len(seen) == 4
    assert out.read_text().splitlines()[:3] == whole
    assert not (tmp_path / ".uncnn.csv.work").exists()
    shutil.rmtree(tmp_path / "two.zarr")
    fingerprints = ["fingerprint-sub-000", "changed", "fingerprint-sub-002"]
    attributes = volume_attributes(scans, fingerprints)
    write_volumes(tmp_path / "two.zarr", attributes, (volume_row(i) for i in range(3)))
    command = ["features", "--volumes", tmp_path / "two.zarr", "--out", out]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert "uncnn, 1 scans computed, 2 kept" in result.output


def test_a_missing_package_is_told_with_its_extra(tmp_path, monkeypatch):
    volumes = make_volumes(tmp_path / "volumes.zarr", subjects(1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[uncnn\]'"):
        write_uncnn_features(volumes, tmp_path / "uncnn.csv", device=CPU)


@pytest.mark.slow
def test_the_network_itself_is_frozen_and_its_features_can_be_fitted(tmp_path):
    """9664 numbers, of which hundreds are constant."""
    make_volumes(tmp_path / "volumes.zarr", subjects(2))
    command = ["features", "--volumes", tmp_path / "volumes.zarr", "--out", tmp_path / "u.csv"]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    x = pd.read_csv(tmp_path / "u.csv").select_dtypes("number").to_numpy()
    assert x.shape == (2, 9664)
    assert np.abs(x[0] - x[1]).max() > 0.01
    many, truth = np.tile(x, (6, 1)), np.tile([0.0, 1.0], 6)
    probe = fit_linear(many, truth, np.arange(12).astype(str), "classification", folds=2, seed=0)
    score = probe.score(many)
    assert np.isfinite(score).all()
    assert score[1] > score[0]
