"""Damage: every flipped byte and missing file is found, named, refused by training, and healed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.encoding.repair import repair_latents
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.runtime.devices import torch_threads
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import RecordError
from pipeline.stores.record_copy import copy_differs
from pipeline.stores.verify import refuse_damaged, verify_store
from schemas.errors import ContractError
from schemas.params import EncodeParams
from tests.support.volumes import make_volumes, subjects

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=8, precision="fp32")
CHUNK = "posterior_logvar/c/1/0/0/0/0"
RECORD_COPY = "posterior_logvar/record.json"


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


@pytest.fixture
def copy(tmp_path, latents_path):
    return shutil.copytree(latents_path, tmp_path / "l.zarr")


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def flip(file, at=0.5):
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    file.write_bytes(data)


def found(path):
    """The scans that verify names, or the store itself where it does not open."""
    try:
        return list(verify_store(path))
    except ContractError as error:
        return [str(path)] if str(path) in str(error) and "\n" not in str(error) else [str(error)]


def test_every_flipped_byte_is_found(copy, latents_path):
    rng = np.random.default_rng(0)
    for file in sorted(f for f in copy.rglob("*") if f.is_file()):
        good = file.read_bytes()
        for at in [0, len(good) - 1, *rng.integers(0, len(good), 6)]:
            if good[at : at + 1].isspace():
                continue  # between the words of a JSON file nothing is lost
            bad = bytearray(good)
            bad[at] ^= 1 << int(rng.integers(0, 8))
            file.write_bytes(bad)
            if file.name == "record.json":
                assert copy_differs(copy), (file, at)
                continue
            named = found(copy)
            if file == copy / "zarr.json":
                assert named == [str(copy)], (file, at)
            elif file.name == "zarr.json":
                assert named == subjects(20), (file, at)
            else:
                unit = int(file.relative_to(copy).parts[2])
                assert named == subjects(20)[unit * 8 : unit * 8 + 8], (file, at)
        file.write_bytes(good)
    assert verify_store(copy) == {}


EXPECTED_COUNTS = {
    "flipped": 8,
    "deleted": 8,
    "metadata": 0,
    "record": 0,
    "record and chunk": 8,
    "no record": 0,
    "copy": 0,
    "record and copy": 20,
}
"""Scans to encode again, by what is damaged."""


@pytest.mark.parametrize("damage", EXPECTED_COUNTS)
def test_repair_gives_back_the_very_bytes(
    copy, latents_path, volumes, autoencoder, monkeypatch, damage
):
    expected, encoded = contents(latents_path), []
    if damage == "flipped":
        flip(copy / CHUNK)
    elif damage == "deleted":
        (copy / CHUNK).unlink()
    elif damage == "metadata":
        flip(copy / "posterior_mean" / "zarr.json")
    elif damage == "no record":
        (copy / "zarr.json").write_text("{}")
    elif damage == "copy":
        flip(copy / RECORD_COPY)
    else:
        text = (copy / "zarr.json").read_text()
        (copy / "zarr.json").write_text(text.replace("sub-003", "sub-033"))
        if damage == "record and chunk":
            flip(copy / CHUNK)
        if damage == "record and copy":
            flip(copy / RECORD_COPY)
    original = autoencoder.net.encode
    monkeypatch.setattr(autoencoder.net, "encode", lambda x: encoded.append(len(x)) or original(x))
    count = repair_latents(copy, volumes, autoencoder, PARAMS, devices=[CPU])
    expected_count = EXPECTED_COUNTS[damage]
    assert count == sum(encoded) == expected_count
    assert contents(copy) == expected
    assert not copy.with_name("l.zarr.building").exists()


@pytest.mark.parametrize("again", ["repair", "encode"])
def test_other_threads_than_recorded_do_not_change_a_bit(
    tmp_path, volumes, autoencoder, monkeypatch, again
):
    """What ran before may have left torch with another number of threads; it is put back."""
    out, used, original = tmp_path / "l.zarr", [], autoencoder.net.encode
    monkeypatch.setattr(
        autoencoder.net, "encode", lambda x: used.append(torch.get_num_threads()) or original(x)
    )
    with torch_threads(3):
        encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    expected = contents(out)
    (out / CHUNK).unlink()
    with torch_threads(2):
        if again == "repair":
            repair_latents(out, volumes, autoencoder, PARAMS, devices=[CPU])
        else:
            encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
        assert torch.get_num_threads() == 2
    assert set(used) == {3}
    assert contents(out) == expected


@pytest.mark.parametrize(
    ("count", "remedy"), [(3, "encode --replace` follow"), (22, "encode` follow")]
)
def test_other_volumes_are_refused_with_the_way_to_follow_them(
    copy, tmp_path, autoencoder, count, remedy
):
    flip(copy / CHUNK)
    before = contents(copy)
    other = make_volumes(tmp_path / "v.zarr", subjects(count))
    with pytest.raises(ContractError, match="--volumes.*" + remedy):
        repair_latents(copy, other, autoencoder, PARAMS, devices=[CPU])
    assert contents(copy) == before
    told = "--replace" in remedy
    encode_volumes(other, autoencoder, copy, PARAMS, device=CPU, replace=told)
    assert verify_store(copy) == {}
    assert open_latents(copy).attributes.scan_ids == subjects(count)


def test_another_autoencoder_is_refused_with_the_way_to_take_it(copy, volumes, autoencoder):
    flip(copy / "posterior_mean" / "zarr.json")
    before, other = contents(copy), replace(autoencoder, digest="another")
    with pytest.raises(ContractError, match=r"not made with the --ae .*encode --replace`"):
        repair_latents(copy, volumes, other, PARAMS, devices=[CPU])
    assert contents(copy) == before


def test_volumes_are_not_taken_for_latents(tmp_path, volumes, autoencoder):
    store = make_volumes(tmp_path / "v.zarr", subjects(3)).path
    (store / "volume" / "zarr.json").unlink()
    before = contents(store)
    with pytest.raises(ContractError, match="a volumes store, expected latents"):
        repair_latents(store, volumes, autoencoder, PARAMS, devices=[CPU])
    assert contents(store) == before


def test_a_hurt_record_is_not_made_anew_from_another_cohort(copy, tmp_path, autoencoder):
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text.replace("sub-003", "sub-033"))
    flip(copy / RECORD_COPY)
    before = contents(copy)
    other = make_volumes(tmp_path / "v.zarr", [f"sub-{i:03d}" for i in range(100, 120)])
    with pytest.raises(ContractError, match=r"--volumes .* hold 0 of its 20 scans"):
        repair_latents(copy, other, autoencoder, PARAMS, devices=[CPU])
    assert contents(copy) == before


def test_metadata_that_this_zarr_writes_otherwise_is_left(copy, volumes, autoencoder, monkeypatch):
    flip(copy / "posterior_mean" / "zarr.json")
    before = contents(copy)
    monkeypatch.setattr(StoreBuilder, "metadata", lambda *_: b"{}")
    with pytest.raises(ContractError, match=r"this version of zarr.*encode --replace`"):
        repair_latents(copy, volumes, autoencoder, PARAMS, devices=[CPU])
    assert contents(copy) == before


@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_what_comes_out_otherwise_than_recorded_is_left_unless_told(
    copy, volumes, autoencoder, monkeypatch, damage
):
    flip(copy / CHUNK) if damage == "flipped" else (copy / CHUNK).unlink()
    before, original = contents(copy), autoencoder.net.encode
    monkeypatch.setattr(autoencoder.net, "encode", lambda x: [y + 0.1 for y in original(x)])
    with pytest.raises(ContractError, match=r"sub-008 and others come out.*encode --replace`"):
        repair_latents(copy, volumes, autoencoder, PARAMS, devices=[CPU])
    assert contents(copy) == before
    told = encode_volumes(volumes, autoencoder, copy, PARAMS, device=CPU, replace=True)
    assert told.encoded == 8
    assert verify_store(copy) == {}
    again = encode_volumes(volumes, autoencoder, copy, PARAMS, device=CPU, replace=True)
    assert again.encoded == 0


@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_training_refuses_a_hurt_store_before_it_starts(copy, tmp_path, split, damage):
    from pipeline.training.latent_diffusion import train_denoiser
    from schemas.diffusion import TrainLdmParams

    flip(copy / CHUNK) if damage == "flipped" else (copy / CHUNK).unlink()
    store = open_latents(copy)
    expected = "posterior_logvar is damaged" if damage == "flipped" else "missing"
    with pytest.raises(ContractError, match=rf"{expected}.*pipeline verify"):
        train_denoiser(store, split, TrainLdmParams(steps=1), tmp_path / "ldm", device=CPU)
    assert not (tmp_path / "ldm").exists()


def test_any_flip_in_the_record_is_seen_and_healed_without_encoding(
    copy, latents_path, volumes, autoencoder, monkeypatch
):
    monkeypatch.setattr(autoencoder.net, "encode", lambda x: pytest.fail("encoded"))
    file = copy / "zarr.json"
    good, expected = file.read_bytes(), contents(latents_path)
    words = [i for i in range(len(good)) if not good[i : i + 1].isspace()]
    for at in np.random.default_rng(3).choice(words, 12, replace=False).tolist():
        bad = bytearray(good)
        bad[at] ^= 255
        file.write_bytes(bad)
        with pytest.raises(RecordError):
            verify_store(copy)
        assert repair_latents(copy, volumes, autoencoder, PARAMS, devices=[CPU]) == 0
        assert contents(copy) == expected, at
    for key in ("zarr_format", "node_type"):
        file.write_bytes(good.replace(key.encode(), key.upper().encode()))
        with pytest.raises(RecordError):
            verify_store(copy)


def test_a_hurt_record_does_not_open(copy):
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text.replace("sub-003", "sub-033"))
    with pytest.raises(RecordError, match="damaged"):
        open_latents(copy)


def test_volumes_are_named_one_by_one(tmp_path):
    store = make_volumes(tmp_path / "v.zarr", subjects(5))
    flip(store.path / "volume" / "c" / "0" / "0" / "0" / "0", at=0.3)
    hurt = verify_store(store.path)
    assert len(hurt) == 1
    assert next(iter(hurt)) in subjects(5)
    with pytest.raises(ContractError, match="1 scans damaged"):
        refuse_damaged(store)
