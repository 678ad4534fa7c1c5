"""Encoding when memory ends, and on several devices: the bytes stay the same."""

import numpy as np
import pytest
import torch

from pipeline.encoding.batch_encoder import BatchEncoder
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.runtime.devices import resolve_devices
from pipeline.stores.latents import open_latents
from schemas.errors import ContractError, ParamsError
from schemas.params import EncodeParams

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=4, batch_size=2, precision="fp32")


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


@pytest.mark.parametrize("name", ["mps", "meta", "xpu", "vulkan", "cpu:1", "gpu"])
def test_devices_that_nothing_here_runs_on_are_refused(name):
    with pytest.raises(ParamsError, match=f"--device {name}: expected auto, cpu, cuda"):
        resolve_devices(name)


def limit_memory(autoencoder, monkeypatch, scans, error):
    """Let the encoder fail on batches of more scans; return the sizes of those that passed."""
    passed, original = [], autoencoder.net.encode

    def encode(x):
        if len(x) > scans:
            raise error
        passed.append(len(x))
        return original(x)

    monkeypatch.setattr(autoencoder.net, "encode", encode)
    return passed


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu"])
def test_out_of_memory_halves_the_batch_and_goes_on(
    tmp_path, volumes, autoencoder, monkeypatch, error
):
    encode_volumes(volumes, autoencoder, tmp_path / "small.zarr", PARAMS, device=CPU)
    passed = limit_memory(autoencoder, monkeypatch, 2, error)
    params = EncodeParams(chunk_scans=4, batch_size=8, precision="fp32")
    encode_volumes(volumes, autoencoder, tmp_path / "l.zarr", params, device=CPU)
    assert set(passed) == {2}
    assert len(passed) == 10
    halved, small = open_latents(tmp_path / "l.zarr"), open_latents(tmp_path / "small.zarr")
    assert halved.digest == small.digest
    assert halved.encode_settings == small.encode_settings
    assert {how.batch_size for how in small.encode_settings} == {2}


def test_a_scan_that_does_not_fit_is_one_line(tmp_path, volumes, autoencoder, monkeypatch):
    limit_memory(autoencoder, monkeypatch, 0, OUT_OF_MEMORY[0])
    with pytest.raises(ContractError, match="out of memory with one scan"):
        encode_volumes(volumes, autoencoder, tmp_path / "l.zarr", PARAMS, device=CPU)
    assert not (tmp_path / "l.zarr").exists()


def test_other_errors_are_not_taken_for_memory(autoencoder, monkeypatch):
    limit_memory(autoencoder, monkeypatch, 0, RuntimeError("shapes do not match"))
    encoder = BatchEncoder(autoencoder, batch_size=4, precision="fp32", device=CPU)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode(np.zeros((4, 16, 24, 20), np.uint8), advance=lambda _: None)


def test_a_latent_does_not_depend_on_its_company(volumes, autoencoder):
    scans = volumes.read("volume", slice(0, 6))

    def encode(batch):
        encoder = BatchEncoder(autoencoder, batch_size=4, precision="fp32", device=CPU)
        return encoder.encode(batch, advance=lambda _: None)[0]

    together, alone = encode(scans), np.concatenate([encode(scans[i : i + 1]) for i in range(6)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(tmp_path, volumes, autoencoder):
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    encode_volumes(volumes, autoencoder, one, PARAMS, device=CPU)
    summary = encode_volumes(volumes, autoencoder, two, PARAMS, device=resolve_devices("cpu,cpu"))
    assert summary.encoded == 20
    files = [f.relative_to(one) for f in one.rglob("*") if f.is_file()]
    assert len(files) == 14
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file


def test_devices_are_named_in_a_list():
    assert resolve_devices("cpu, cpu") == [CPU, CPU]
    with pytest.raises(ParamsError, match="cuda:99"):
        resolve_devices("cpu,cuda:99")
