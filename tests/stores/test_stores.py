"""Stores: identity, refusals, resume after a kill, damage found."""

import json
import shutil
from itertools import chain

import numpy as np
import pytest
import zarr

from pipeline.runtime.files import lock_store
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore, is_current
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import _arrays, open_volumes, write_volumes
from schemas.errors import ContractError
from tests.support.volumes import SHAPE, make_volumes, subjects, volume_attributes, volume_row


def test_volumes_come_back_as_written(volumes):
    for i in (0, 15, 16, 19):
        row = volumes.read_row(i)
        expected = volume_row(i)
        np.testing.assert_array_equal(row.volume, expected.volume)
        np.testing.assert_array_equal(row.native_to_mni, expected.native_to_mni)
        np.testing.assert_array_equal(row.log_bias, expected.log_bias)


def test_same_input_gives_the_same_bytes(tmp_path, volumes):
    make_volumes(tmp_path / "again.zarr", subjects(20))
    for file in volumes.path.rglob("*"):
        if file.is_file():
            again = tmp_path / "again.zarr" / file.relative_to(volumes.path)
            assert file.read_bytes() == again.read_bytes(), file


def test_interrupted_writing_leaves_no_store_and_resumes_to_the_same_bytes(tmp_path, volumes):
    out, ids = tmp_path / "v.zarr", subjects(20)

    def killed():
        raise KeyboardInterrupt
        yield

    rows = chain((volume_row(i) for i in range(17)), killed())
    with pytest.raises(KeyboardInterrupt):
        write_volumes(out, volume_attributes(ids), rows)
    assert not out.exists()
    with pytest.raises(ContractError, match="still being built"):
        open_volumes(out)
    builder = StoreBuilder(out, volume_attributes(ids), _arrays(SHAPE), unit_rows=16)
    assert builder.pending() == [range(16, 20)]
    write_volumes(out, volume_attributes(ids), (volume_row(i) for i in range(20)))
    assert open_volumes(out).digest == volumes.digest
    assert not out.with_name("v.zarr.building").exists()


def test_kill_between_the_two_renames_of_the_swap_is_recovered(tmp_path):
    out = tmp_path / "v.zarr"
    make_volumes(out, subjects(3))
    (tmp_path / "v.zarr.building").mkdir()
    out.rename(tmp_path / "v.zarr.building" / "old.zarr")
    make_volumes(out, subjects(3))
    assert len(open_volumes(out)) == 3


def test_a_changed_plan_forgets_the_units_of_the_old_one(tmp_path):
    out = tmp_path / "v.zarr"
    first = StoreBuilder(out, volume_attributes(subjects(3)), _arrays(SHAPE), unit_rows=16)
    rows = [volume_row(i) for i in range(3)]
    content = {a.name: np.stack([getattr(r, a.name) for r in rows]) for a in _arrays(SHAPE)}
    first.write(range(3), content)
    assert not first.pending()
    changed = volume_attributes(subjects(3), ["other"] * 3)
    assert StoreBuilder(out, changed, _arrays(SHAPE), unit_rows=16).pending() == [range(3)]


def test_a_store_is_current_only_for_its_own_attributes(volumes):
    same = volumes.attributes.model_copy(update={"complete": False})
    assert is_current(volumes.path, same)
    assert not is_current(volumes.path, same.model_copy(update={"made_by": "another version"}))


def test_second_writer_is_refused(tmp_path):
    path = tmp_path / "v.zarr"
    with (
        lock_store(path),
        pytest.raises(ContractError, match="another process"),
        lock_store(path),
    ):
        pass


@pytest.mark.parametrize(
    "case", ["missing", "folder", "text", "other kind", "version", "incomplete"]
)
def test_what_is_no_complete_store_of_the_kind_is_refused_in_one_line(tmp_path, volumes, case):
    path = tmp_path / "x.zarr"
    if case == "folder":
        path.mkdir()
    elif case == "text":
        path.mkdir()
        (path / "zarr.json").write_text("not json")
    elif case != "missing":
        shutil.copytree(volumes.path, path)
        meta = json.loads((path / "zarr.json").read_text())
        change = {
            "other kind": {"kind": "latents"},
            "version": {"schema_version": 99},
            "incomplete": {"complete": False},
        }[case]
        meta["attributes"] |= change
        (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(ContractError) as caught:
        open_volumes(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writing_onto_something_else_is_refused(tmp_path):
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "v.zarr" / "thesis.txt").write_text("precious")
    with pytest.raises(ContractError, match="no Zarr store"):
        make_volumes(tmp_path / "v.zarr", subjects(2))
    assert (tmp_path / "v.zarr" / "thesis.txt").read_text() == "precious"


def test_verify_names_the_scans_of_a_flipped_byte(tmp_path, latents_path):
    path = tmp_path / "l.zarr"
    shutil.copytree(latents_path, path)
    assert verify_store(path) == {}
    chunk = path / "posterior_mean" / "c" / "1" / "0" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    assert list(verify_store(path)) == subjects(20)[8:16]
    with pytest.raises(ContractError, match="verify"):
        open_latents(path).load(subjects(20))


def test_verify_names_the_scans_of_a_missing_chunk_and_training_refuses_it(tmp_path, latents_path):
    path = tmp_path / "l.zarr"
    shutil.copytree(latents_path, path)
    (path / "posterior_mean" / "c" / "2" / "0" / "0" / "0" / "0").unlink()
    assert list(verify_store(path)) == subjects(20)[16:]
    with pytest.raises(ContractError, match=r"posterior_mean/c/2/0/0/0/0 is missing"):
        open_latents(path).load(subjects(20))


def test_plain_zarr_reads_the_latents(latents_path):
    group = zarr.open_group(latents_path, mode="r")
    assert group["posterior_mean"].shape == (20, 3, 4, 6, 5)
    assert group["posterior_mean"].dtype == np.float16
    assert group.attrs["scan_ids"] == subjects(20)
    assert np.isfinite(group["posterior_logvar"][:]).all()


def test_loading_some_scans_keeps_the_asked_order(latents_path):
    store = OpenStore(latents_path, kind="latents")
    asked = ["sub-017", "sub-002", "sub-009"]
    loaded = open_latents(latents_path).load(asked)
    expected = store.read("posterior_mean")[[17, 2, 9]]
    np.testing.assert_array_equal(loaded.mean.numpy(), expected)
    with pytest.raises(ContractError, match="sub-999"):
        open_latents(latents_path).load(["sub-999"])
