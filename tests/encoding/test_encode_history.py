"""Encoding again: other scans, changed scans, damage, kills in between. Nothing is lost."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.encoding import unit_writer as fill
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.stores.latents import open_latents
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import open_volumes, write_volumes
from schemas.errors import ContractError
from schemas.params import EncodeParams
from tests.support.volumes import make_volumes, subjects, volume_attributes, volume_row

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=4, batch_size=2, precision="fp32")


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


@pytest.fixture
def encode(autoencoder):
    def run(volumes, out, params=PARAMS, **more):
        return encode_volumes(volumes, autoencoder, out, params, device=CPU, **more)

    return run


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def volumes_with(path, ids, fingerprints, preprocessing="test"):
    attributes = volume_attributes(ids, fingerprints)
    attributes = attributes.model_copy(update={"digests": {"preprocessing": preprocessing}})
    write_volumes(path, attributes, (volume_row(int(s[4:])) for s in ids))
    return open_volumes(path)


def stop_after(autoencoder, monkeypatch, batches):
    """Let the encoder die, as if killed, after so many batches."""
    calls, original = [], autoencoder.net.encode

    def dying(x):
        calls.append(len(x))
        if len(calls) > batches:
            raise KeyboardInterrupt
        return original(x)

    monkeypatch.setattr(autoencoder.net, "encode", dying)
    return original


def test_new_scans_after_a_kill_cost_only_themselves(tmp_path, encode, autoencoder, monkeypatch):
    ten, thirteen, twelve = (
        make_volumes(tmp_path / f"{n}.zarr", subjects(n)) for n in (10, 13, 12)
    )
    out = tmp_path / "l.zarr"
    for volumes, batches in ((ten, 4), (thirteen, 1)):
        original = stop_after(autoencoder, monkeypatch, batches)
        with pytest.raises(KeyboardInterrupt):
            encode(volumes, out)
        monkeypatch.setattr(autoencoder.net, "encode", original)
    # Two units of four were finished under the first plan, none under the second.
    summary = encode(twelve, out)
    assert (summary.encoded, summary.reused) == (4, 8)
    encode(twelve, tmp_path / "fresh.zarr")
    assert contents(out) == contents(tmp_path / "fresh.zarr")
    assert not out.with_name("l.zarr.building").exists()


def test_scans_gone_from_the_input_are_not_dropped_unasked(tmp_path, encode):
    six, four = (make_volumes(tmp_path / f"{n}.zarr", subjects(n)) for n in (6, 4))
    out = tmp_path / "l.zarr"
    encode(six, out)
    before = contents(out)
    with pytest.raises(ContractError, match=r"2 of its 6 scans are not in the input.*--replace"):
        encode(four, out)
    assert contents(out) == before
    assert encode(four, out, replace=True).encoded == 0
    assert open_latents(out).attributes.scan_ids == subjects(4)


def test_another_cohort_under_the_same_ids_is_refused(tmp_path, encode):
    ids, out = subjects(5), tmp_path / "l.zarr"
    encode(make_volumes(tmp_path / "v.zarr", ids), out)
    other = volumes_with(tmp_path / "w.zarr", ids, [f"other-{s}" for s in ids])
    with pytest.raises(ContractError, match=r"other content.*same ids.*--replace"):
        encode(other, out)
    assert encode(other, out, replace=True).encoded == 5


def test_one_changed_scan_is_encoded_again(tmp_path, encode, caplog):
    ids, out = subjects(5), tmp_path / "l.zarr"
    encode(make_volumes(tmp_path / "v.zarr", ids), out)
    fingerprints = [f"fingerprint-{s}" for s in ids]
    fingerprints[3] = "changed"
    changed = volumes_with(tmp_path / "w.zarr", ids, fingerprints)
    assert encode(changed, out).encoded == 1
    assert "1 scans changed since they were encoded, first sub-003" in caplog.text


def test_other_preprocessing_is_refused(tmp_path, encode):
    ids, out = subjects(5), tmp_path / "l.zarr"
    encode(make_volumes(tmp_path / "v.zarr", ids), out)
    other = volumes_with(tmp_path / "w.zarr", ids, [f"finer-{s}" for s in ids], "finer")
    with pytest.raises(ContractError, match=r"preprocessed otherwise; choose a new --out"):
        encode(other, out)


def test_damage_is_healed_on_the_way_and_never_copied(tmp_path, encode, volumes):
    out = tmp_path / "l.zarr"
    encode(volumes, out)
    good = contents(out)
    (out / "posterior_mean/c/1/0/0/0/0").unlink()
    assert encode(volumes, out).encoded == 4
    assert contents(out) == good
    chunk = out / "posterior_mean/c/2/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    more = make_volumes(tmp_path / "more.zarr", subjects(22))
    assert encode(more, out).encoded == 4 + 2
    assert verify_store(out) == {}


def test_a_missing_shard_of_the_volumes_is_not_taken_for_black(tmp_path, encode, volumes):
    path = shutil.copytree(volumes.path, tmp_path / "v.zarr")
    (path / "volume/c/1/0/0/0").unlink()
    with pytest.raises(ContractError, match="volume/c/1/0/0/0: missing"):
        encode(open_volumes(path), tmp_path / "l.zarr")
    assert not (tmp_path / "l.zarr").exists()


@pytest.mark.parametrize(
    "hurt",
    ["chunk", *(pytest.param(h, marks=pytest.mark.slow) for h in ("mark", "plan", "metadata"))],
)
def test_what_was_hurt_while_it_was_built_is_done_again(
    tmp_path, encode, volumes, autoencoder, monkeypatch, hurt
):
    out, calm = tmp_path / "l.zarr", tmp_path / "calm.zarr"
    encode(volumes, calm)
    original = stop_after(autoencoder, monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        encode(volumes, out)
    monkeypatch.setattr(autoencoder.net, "encode", original)
    work = out.with_name("l.zarr.building")
    file = {
        "mark": work / "marks/0000001.json",
        "chunk": work / "store.zarr/posterior_mean/c/1/0/0/0/0",
        "plan": work / "plan.json",
        "metadata": work / "store.zarr/posterior_mean/zarr.json",
    }[hurt]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    assert encode(volumes, out).encoded == {"plan": 20, "metadata": 20}.get(hurt, 12)
    assert contents(out) == contents(calm)


@pytest.mark.slow
def test_a_kill_at_any_step_of_the_swap_loses_nothing(tmp_path, encode, monkeypatch):
    """Every rename, deletion and folder removal of finish() may be the last."""
    few, more = (make_volumes(tmp_path / f"{n}.zarr", subjects(n)) for n in (5, 7))
    encode = partial(encode, params=PARAMS.model_copy(update={"chunk_scans": 8}))
    encode(more, tmp_path / "calm.zarr")
    calm, encoded = contents(tmp_path / "calm.zarr"), []
    read = fill._read
    monkeypatch.setattr(fill, "_read", lambda v, rows: encoded.extend(rows) or read(v, rows))
    for step in range(100):
        out = tmp_path / f"l{step}.zarr"
        encode(few, out)
        encoded.clear()
        with monkeypatch.context() as patch:
            if not die_at(patch, step, lambda out=out: encode(more, out)):
                break
        summary = encode(more, out)
        assert summary.encoded == 0
        assert encoded == [5, 6]
        assert contents(out) == calm
        assert not out.with_name(out.name + ".building").exists()
    assert step > 8


class KilledError(Exception):
    """Not KeyboardInterrupt, which would end Zarr's own thread."""


def die_at(patch, step, work):
    """Run until the step-th change of the file system within finish(); tell whether it came."""
    from pipeline.stores.builder import StoreBuilder

    taken = iter(range(1000))

    def dying(original):
        def call(*args, **kwargs):
            if next(taken) == step:
                raise KilledError
            return original(*args, **kwargs)

        return call

    finish = StoreBuilder.finish

    def fragile(self):
        for name in ("rename", "replace", "unlink", "rmdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        finish(self)

    patch.setattr(StoreBuilder, "finish", fragile)
    try:
        work()
    except KilledError:
        return True
    return False


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path, encode):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "l.zarr"
    link.symlink_to(tmp_path / "disk" / "real.zarr")
    for count in (3, 5):
        encode(make_volumes(tmp_path / f"{count}.zarr", subjects(count)), link)
        assert link.is_symlink()
        assert len(open_latents(tmp_path / "disk" / "real.zarr")) == count
    assert [p.name for p in tmp_path.glob("*.building")] == []


def test_relative_paths_and_the_current_folder(tmp_path, encode, monkeypatch):
    volumes = make_volumes(tmp_path / "v.zarr", subjects(2))
    (tmp_path / "here and there").mkdir()
    monkeypatch.chdir(tmp_path / "here and there")
    assert encode(volumes, Path("l.zarr/")).encoded == 2
    assert encode(volumes, Path("../here and there/./l.zarr")).encoded == 0
    for odd in (".", ".."):
        with pytest.raises(ContractError, match="no Zarr store"):
            encode(volumes, Path(odd))


def test_each_row_keeps_the_batch_size_it_was_made_with(tmp_path, encode, autoencoder):
    from pipeline.encoding.repair import repair_latents

    out = tmp_path / "l.zarr"
    encode(make_volumes(tmp_path / "3.zarr", subjects(3)), out)
    five = make_volumes(tmp_path / "5.zarr", subjects(5))
    encode(five, out, PARAMS.model_copy(update={"batch_size": 1}))
    assert [how.batch_size for how in open_latents(out).encode_settings] == [2, 2, 2, 1, 1]
    good = contents(out)
    (out / "posterior_logvar/c/0/0/0/0/0").unlink()
    assert repair_latents(out, five, autoencoder, PARAMS, devices=[CPU]) == 4
    assert contents(out) == good


def test_rows_in_another_order_are_copied(tmp_path, encode):
    ids = subjects(9)
    out = tmp_path / "l.zarr"
    encode(make_volumes(tmp_path / "v.zarr", ids), out)
    mean = dict(zip(ids, open_latents(out).read("posterior_mean"), strict=True))
    turned = make_volumes(tmp_path / "w.zarr", ids[::-1])
    assert encode(turned, out).encoded == 0
    for scan, row in zip(ids[::-1], open_latents(out).read("posterior_mean"), strict=True):
        np.testing.assert_array_equal(row, mean[scan])


def test_the_plan_keeps_an_automatic_batch_size(
    tmp_path, encode, volumes, autoencoder, monkeypatch
):
    from pipeline.encoding import device_settings

    auto = PARAMS.model_copy(update={"batch_size": "auto"})
    out = tmp_path / "l.zarr"
    monkeypatch.setattr(device_settings, "find_batch_size", lambda *a, **k: 4)
    original = stop_after(autoencoder, monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        encode(volumes, out, auto)
    plan = json.loads((tmp_path / "l.zarr.building/plan.json").read_text())
    assert plan["settings"] == {"batch_size": 4, "threads": 1}
    monkeypatch.setattr(autoencoder.net, "encode", original)
    monkeypatch.setattr(device_settings, "find_batch_size", lambda *a, **k: 1)
    encode(volumes, out, auto)
    assert {how.batch_size for how in open_latents(out).encode_settings} == {4}
