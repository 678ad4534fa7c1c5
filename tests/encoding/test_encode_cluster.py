"""Encoding on the workers of a dask scheduler."""

import pytest
import torch
from distributed import LocalCluster

from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.stores.latents import open_latents
from pipeline.workers import dask_client
from schemas.errors import ContractError, ParamsError
from schemas.params import EncodeParams

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=2, batch_size=2, precision="fp32")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.slow
def test_workers_give_the_bytes_of_one_process(tmp_path, volumes, autoencoder_path):
    autoencoder = load_autoencoder(autoencoder_path, device=CPU)
    encode_volumes(volumes, autoencoder, tmp_path / "one.zarr", PARAMS, device=CPU)
    auto = PARAMS.model_copy(update={"batch_size": "auto"})
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", processes=True
    ) as cluster:
        where = {"device": CPU, "scheduler": cluster.scheduler_address, "device_name": "cpu"}
        out = tmp_path / "many.zarr"
        assert encode_volumes(volumes, autoencoder, out, PARAMS, **where).encoded == 20
        assert contents(out) == contents(tmp_path / "one.zarr")
        assert encode_volumes(volumes, autoencoder, out, PARAMS, **where).encoded == 0
        encode_volumes(volumes, autoencoder, tmp_path / "auto.zarr", auto, **where)
        assert {how.batch_size for how in open_latents(tmp_path / "auto.zarr").encode_settings} == {
            4
        }
        where["device_name"] = "cuda:99"
        with pytest.raises(ParamsError, match="no such GPU"):
            encode_volumes(volumes, autoencoder, tmp_path / "none.zarr", PARAMS, **where)
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.slow
def test_no_scheduler_at_the_address_is_one_line(tmp_path, volumes, autoencoder_path, monkeypatch):
    monkeypatch.setattr(dask_client, "CONNECT_TIMEOUT", "1s")
    autoencoder = load_autoencoder(autoencoder_path, device=CPU)
    with pytest.raises(ContractError, match=r"tcp://127\.0\.0\.1:9: no dask scheduler answers"):
        encode_volumes(
            volumes,
            autoencoder,
            tmp_path / "l.zarr",
            PARAMS,
            device=CPU,
            scheduler="tcp://127.0.0.1:9",
        )
