"""Encoding: once a scan, whatever happens in between."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.encoding.input_volumes import input_volumes
from pipeline.encoding.run import encode_volumes
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.models.frozen import load_autoencoder
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.grid import GridParams
from schemas.params import EncodeParams, Params
from tests.support.volumes import make_volumes, subjects

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=8, precision="fp32")


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


def test_latents_are_the_posterior_of_each_scan(volumes, autoencoder, latents_path):
    store = open_latents(latents_path)
    x = torch.from_numpy(volumes.read_unit_interval(slice(9, 10)))
    mean, logvar = autoencoder.net.encode(x)
    np.testing.assert_allclose(store.read("posterior_mean", 9), mean[0], atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(store.read("posterior_logvar", 9), logvar[0], atol=2e-2, rtol=2e-3)


def test_second_run_does_nothing(volumes, autoencoder, latents_path):
    summary = encode_volumes(volumes, autoencoder, latents_path, PARAMS, device=CPU)
    assert (summary.encoded, summary.reused) == (0, 20)


def test_no_network_is_built_where_nothing_is_encoded(volumes, autoencoder_path, latents_path):
    lazy = load_autoencoder(autoencoder_path, device=CPU, at_use=True)
    assert encode_volumes(volumes, lazy, latents_path, PARAMS, device=CPU).encoded == 0
    assert "net" not in vars(lazy)
    grid = volumes.attributes.grid.shape
    assert lazy.latent_shape(grid) == lazy.net.latent_shape(grid)


def test_added_scans_alone_are_encoded_and_bytes_equal_a_fresh_run(tmp_path, autoencoder):
    few = make_volumes(tmp_path / "few.zarr", subjects(10))
    grown = make_volumes(tmp_path / "grown.zarr", ["sub-100", *subjects(13)])
    out, fresh = tmp_path / "l.zarr", tmp_path / "fresh.zarr"
    encode_volumes(few, autoencoder, out, PARAMS, device=CPU)
    summary = encode_volumes(grown, autoencoder, out, PARAMS, device=CPU)
    assert (summary.encoded, summary.reused) == (4, 10)
    encode_volumes(grown, autoencoder, fresh, PARAMS, device=CPU)
    assert open_latents(out).digest == open_latents(fresh).digest


def test_killed_encoding_goes_on_where_it_was(
    tmp_path, monkeypatch, volumes, autoencoder, latents_path
):
    out = tmp_path / "l.zarr"
    calls = []
    encode = autoencoder.net.encode

    def dying(x):
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(x)

    monkeypatch.setattr(autoencoder.net, "encode", dying)
    with pytest.raises(KeyboardInterrupt):
        encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    assert not out.exists()
    monkeypatch.setattr(autoencoder.net, "encode", encode)
    summary = encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    assert summary.encoded == 12
    assert open_latents(out).digest == open_latents(latents_path).digest


def test_another_precision_is_refused_unless_told(tmp_path, volumes, autoencoder):
    out = tmp_path / "l.zarr"
    encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    other = EncodeParams(chunk_scans=8, precision="bf16")
    with pytest.raises(ContractError, match="--replace"):
        encode_volumes(volumes, autoencoder, out, other, device=CPU)
    assert open_latents(out).attributes.params["encode"]["precision"] == "fp32"
    assert encode_volumes(volumes, autoencoder, out, other, device=CPU, replace=True).encoded == 20


def test_wrong_kind_of_store_is_refused(latents_path):
    with pytest.raises(ContractError, match="expected volumes"):
        open_volumes(latents_path)


def test_columns_of_the_studys_table_play_no_part_for_a_folder(tmp_path, monkeypatch):
    import pipeline.preprocessing.run as preprocessing

    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"scan")
    params = Params.model_validate({"cohort": {"source": "table", "columns": {"age_years": "AGE"}}})
    taken = []

    def preprocess_cohort(manifest, *_args, **_kwargs):
        taken.extend(manifest["scan_id"])
        return SimpleNamespace(quarantined=0)

    monkeypatch.setattr(preprocessing, "preprocess_cohort", preprocess_cohort)
    grid = mni_grid(GridParams(shape=(8, 8, 8)))
    out = tmp_path / "l.zarr"
    input_volumes(tmp_path / "scans", out, params, grid=grid, workers=1, scheduler=None)
    assert taken == ["sub-a"]
