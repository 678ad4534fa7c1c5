"""A store holds what was written, and its digest is that of its content, whatever the content."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes, write_volumes
from tests.support.volumes import SHAPE, volume_attributes, volume_row

SEEDS = st.lists(st.integers(0, 10_000), min_size=1, max_size=18, unique=True)
"""A scan each: more than 16 are more than one shard."""


def write(folder, seeds, rows=None) -> VolumeStore:
    ids = [f"sub-{seed:05d}" for seed in seeds]
    out = folder / "volumes.zarr"
    write_volumes(out, volume_attributes(ids), rows or (row_of(seed) for seed in seeds))
    return open_volumes(out)


def row_of(seed: int) -> VolumeRow:
    """Return a scan of noise: values of every kind, in places of every kind."""
    row = volume_row(seed % 100)
    row.volume[:] = np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)
    return row


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("identity")


@settings(max_examples=5)
@given(seeds=SEEDS)
def test_every_scan_comes_back_as_written(new_folder, seeds):
    store = write(new_folder(), seeds)
    assert store.attributes.scan_ids == [f"sub-{seed:05d}" for seed in seeds]
    for i, seed in enumerate(seeds):
        read, written = store.read_row(i), row_of(seed)
        np.testing.assert_array_equal(read.volume, written.volume)
        np.testing.assert_array_equal(read.native_to_mni, written.native_to_mni)
        np.testing.assert_array_equal(read.intensity_range, written.intensity_range)


def test_only_standardised_volumes_keep_where_tissue_lay(tmp_path):
    levels = [np.array([0.4, 0.6]), np.array([0.4, 0.7])]
    rows = [dataclasses.replace(volume_row(1), tissue_levels=own) for own in levels]
    plain = volume_attributes(["a", "b"])
    moved = plain.model_copy(update={"params": {"preprocess": {"intensity": "landmarks"}}})
    for name, attributes in (("plain", plain), ("moved", moved)):
        write_volumes(tmp_path / name, attributes, iter(rows))
    plain, moved = (open_volumes(tmp_path / name) for name in ("plain", "moved"))
    assert "tissue_levels" not in plain.group
    assert not plain.read_row(1).tissue_levels.any()
    np.testing.assert_array_equal(moved.read_row(1).tissue_levels, levels[1])


@settings(max_examples=5)
@given(seeds=SEEDS, data=st.data())
def test_the_digest_is_that_of_the_content(new_folder, seeds, data):
    digest = write(new_folder(), seeds).digest
    assert write(new_folder(), seeds).digest == digest
    rows = [row_of(seed) for seed in seeds]
    changed = data.draw(st.integers(0, len(seeds) - 1))
    rows[changed].volume[0, 0, 0] ^= 1
    assert write(new_folder(), seeds, rows).digest != digest
