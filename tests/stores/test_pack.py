"""A store in larger chunks is the same store."""

import shutil

import numpy as np
import pytest

from benchmarks.studies.remote_stores import write_latents
from pipeline.stores import pack
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.pack import pack_store
from pipeline.stores.verify import verify_store

NAMES = ("posterior_mean", "posterior_logvar")


@pytest.fixture
def small(tmp_path):
    """100 scans, 13 chunks of 8."""
    write_latents(tmp_path / "small.zarr", 100, 8)
    return OpenStore(tmp_path / "small.zarr")


def test_content_and_digests_stay_and_files_become_few(small, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 40 * 3 * 4 * 5 * 4 * 2)
    packed = OpenStore(pack_store(small, tmp_path / "packed.zarr"))
    assert (packed.digest, packed.unit_digests) == (small.digest, small.unit_digests)
    assert packed.attributes == small.attributes
    assert packed.encode_settings == small.encode_settings
    for name in NAMES:
        np.testing.assert_array_equal(packed.read(name), small.read(name))
        assert packed.array(name).chunks[0] == 40
    assert len(list((packed.path / "posterior_mean" / "c").iterdir())) == 3
    assert verify_store(packed.path) == {}
    ids = small.attributes.scan_ids[::-7]
    for name in ("mean", "logvar"):
        here, there = (getattr(open_latents(s.path).load(ids), name) for s in (small, packed))
        assert (here == there).all()


def test_damage_in_a_large_chunk_names_its_scans_alone(small, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 40 * 3 * 4 * 5 * 4 * 2)
    packed = pack_store(small, tmp_path / "packed.zarr")
    chunk = next(p for p in (packed / "posterior_mean/c/1").rglob("*") if p.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    assert list(verify_store(packed)) == small.attributes.scan_ids[40:80]


def test_large_chunks_and_volumes_stay_as_they_are(small, volumes, tmp_path, monkeypatch):
    assert pack_store(OpenStore(volumes.path), tmp_path / "v.zarr") == volumes.path
    monkeypatch.setattr(pack, "CHUNK_BYTES", 8 * 3 * 4 * 5 * 4 * 2)
    assert pack_store(small, tmp_path / "p.zarr") == small.path
    assert not (tmp_path / "p.zarr").exists()


def test_a_packed_copy_brought_back_is_the_store(small, tmp_path):
    packed = pack_store(small, tmp_path / "packed.zarr")
    shutil.rmtree(small.path)
    shutil.copytree(packed, small.path)
    assert OpenStore(small.path).digest == small.digest
