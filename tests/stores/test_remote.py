"""Stores in object storage and zip files: read as from disk, or refused in one line."""

import shutil
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import obstore
import pytest
from obstore.store import S3Store
from typer.testing import CliRunner

import pipeline.stores.remote as remote
from benchmarks.studies.remote_stores import write_latents
from pipeline.stores.location import MissingChunkError, open_location, shown
from pipeline.stores.open_store import OpenStore
from pipeline.stores.push import push_store
from pipeline.stores.remote import RemoteError
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError, ParamsError
from stages.cli import app
from tests.support.object_storage import s3_settings, serve_files, serve_s3
from tests.support.volumes import make_volumes, subjects


@pytest.fixture(scope="module")
def server():
    with serve_s3() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch) -> str:
    for name, value in s3_settings(server).items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def store(tmp_path, volumes) -> Path:
    return Path(shutil.copytree(volumes.path, tmp_path / "volumes.zarr"))


def remove(name: str) -> None:
    obstore.delete(S3Store("lab", client_options={"allow_http": True}), name)


def put(name: str, content: bytes) -> None:
    obstore.put(S3Store("lab", client_options={"allow_http": True}), name, content)


def test_a_pushed_store_is_read_as_from_disk(bucket, store):
    place = Path("s3://lab/a/volumes.zarr")
    files = sum(path.is_file() for path in store.rglob("*"))
    assert push_store(store, place) == files
    here, there = open_volumes(store), open_volumes(place)
    assert there.digest == here.digest
    assert verify_store(place) == {}
    for row in (0, 17):
        for name in ("volume", "log_bias", "native_shape"):
            np.testing.assert_array_equal(there.read(name, row), here.read(name, row))
    assert push_store(store, place) == 0, "the very same store is there"
    result = CliRunner().invoke(app, ["info", str(place)])
    assert "kind             volumes" in result.output, result.exception


def test_small_chunks_of_latents_are_uploaded_together(bucket, tmp_path):
    write_latents(tmp_path / "latents.zarr", 200, 8)
    here, place = OpenStore(tmp_path / "latents.zarr"), Path("s3://lab/packed/latents.zarr")
    assert push_store(here.path, place) == 6, "a chunk an array, three zarr.json, the record's copy"
    assert push_store(here.path, place) == 0
    there = OpenStore(place)
    assert there.digest == here.digest
    np.testing.assert_array_equal(there.read("posterior_mean"), here.read("posterior_mean"))


def test_another_store_is_never_written_over(bucket, store, tmp_path):
    make_volumes(tmp_path / "other.zarr", subjects(2))
    for target in (Path("s3://lab/b/volumes.zarr"), tmp_path / "volumes.zip"):
        push_store(store, target)
        with pytest.raises(ContractError, match="another store is there"):
            push_store(tmp_path / "other.zarr", target)
        assert len(OpenStore(target)) == 20


def test_unfinished_and_damaged_stores_are_not_pushed(bucket, store):
    chunk = next(path for path in (store / "volume" / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ContractError, match="scans damaged, first sub-"):
        push_store(store, Path("s3://lab/c/volumes.zarr"))
    (store / "zarr.json").unlink()
    with pytest.raises(ContractError, match="found none"):
        push_store(store, Path("s3://lab/c/volumes.zarr"))
    with pytest.raises(ContractError, match="nothing is there"):
        OpenStore(Path("s3://lab/c/volumes.zarr"))


def test_half_an_upload_is_told_and_can_be_finished(bucket, store, monkeypatch):
    place = Path("s3://lab/d/volumes.zarr")
    put_file, count = remote_put(), iter(range(5))

    def killed(*words):
        if next(count, None) is None:
            raise KeyboardInterrupt
        put_file(*words)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.stores.push._put", killed)
        with pytest.raises(KeyboardInterrupt):
            push_store(store, place)
    with pytest.raises(ContractError, match=r"s3://lab/d.*half uploaded; run `pipeline push-store"):
        OpenStore(place)
    push_store(store, place)
    assert verify_store(place) == {}


def remote_put():
    import pipeline.stores.push as push

    return push._put


def test_a_missing_chunk_is_no_fill_value(bucket, store, tmp_path):
    """`volume` and `native_shape` have the fill value 0: Zarr alone would read an empty head."""
    place = Path("s3://lab/e/volumes.zarr")
    push_store(store, place)
    gap = "native_shape/c/0/0"
    remove(f"e/volumes.zarr/{gap}")
    remove("e/volumes.zarr/volume/c/1/0/0/0")
    (store / gap).unlink()
    (store / "volume/c/1/0/0/0").unlink()
    zipped = shutil.make_archive(str(tmp_path / "volumes"), "zip", store)
    for path in (store, place, Path(zipped)):
        opened = open_volumes(path)
        with pytest.raises(ContractError, match=f"chunk file {gap} is missing"):
            opened.read("native_shape")
        with pytest.raises(ContractError, match="chunk file volume/c/1/0/0/0 is missing"):
            opened.read("volume", 17)
        damaged = verify_store(path)
        assert damaged["sub-000"] == f"chunk file {gap} is missing"
        assert len(damaged) == 20
    with pytest.raises(MissingChunkError):
        open_location(store).read(["volume/c/1/0/0/0"])


def test_a_flipped_bit_is_told(bucket, store):
    place, name = Path("s3://lab/f/volumes.zarr"), "volume/c/0/0/0/0"
    push_store(store, place)
    content = bytearray((store / name).read_bytes())
    content[100] ^= 4
    put(f"f/volumes.zarr/{name}", bytes(content))
    assert "sub-000" in verify_store(place)
    result = CliRunner().invoke(app, ["verify", str(place)])
    assert result.exit_code == 1
    assert "s3://lab/f/volumes.zarr: " in result.output
    record = bytearray((store / "zarr.json").read_bytes())
    record[record.index(b"sub-003") + 5] ^= 1
    put("f/volumes.zarr/zarr.json", bytes(record))
    with pytest.raises(ContractError, match="differs from its own digest"):
        OpenStore(place)


def test_a_zip_file_holds_a_store_at_its_top_or_in_a_folder(store, tmp_path):
    flat = tmp_path / "flat.zip"
    push_store(store, flat)
    nested = Path(shutil.make_archive(str(tmp_path / "nested"), "zip", store.parent, store.name))
    for path in (flat, nested):
        assert verify_store(path) == {}
        np.testing.assert_array_equal(
            open_volumes(path).read("volume", 3), open_volumes(store).read("volume", 3)
        )
    (tmp_path / "text.zip").write_text("no zip file")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as opened:
        opened.writestr("readme.txt", "nothing")
    for name, told in (("text", "no zip file"), ("empty", "found none"), ("none", "found none")):
        with pytest.raises(ContractError, match=told):
            OpenStore(tmp_path / f"{name}.zip")


def test_a_web_server_that_lists_nothing_will_do(store):
    with serve_files(store.parent) as address:
        place = Path(f"{address}/volumes.zarr")
        assert verify_store(place) == {}
        assert open_volumes(place).has_bias
        with pytest.raises(ContractError, match=r"http://127\S+/none.zarr.*nothing is there"):
            OpenStore(Path(f"{address}/none.zarr"))
    with serve_files(store.parent, ranges=False) as address:
        opened = OpenStore(Path(f"{address}/volumes.zarr"))
        with pytest.raises(RemoteError, match="the server sends whole files alone"):
            opened.read("volume", 0)


def test_trouble_is_tried_again_then_told_in_one_line(store, monkeypatch):
    with serve_files(store.parent, [503, 503]) as address:
        assert len(OpenStore(Path(f"{address}/volumes.zarr"))) == 20
    with (
        serve_files(store.parent, [403] * 9) as address,
        pytest.raises(RemoteError, match=r"zarr.json: access is refused \(403\); credentials"),
    ):
        OpenStore(Path(f"{address}/volumes.zarr"))
    monkeypatch.setattr(remote, "RETRIES", 1)
    with pytest.raises(RemoteError, match="the server cannot be reached") as caught:
        OpenStore(Path(f"{address}/volumes.zarr"))  # it is gone
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(remote, "ANSWER", timedelta(seconds=0.2))
    with (
        serve_files(store.parent, [0.6] * 9) as address,
        pytest.raises(RemoteError, match="no answer in time"),
    ):
        OpenStore(Path(f"{address}/volumes.zarr"))


def test_no_access_while_verifying_is_no_damage(store):
    """`verify` names damaged scans; a server that refuses says nothing about them."""
    with serve_files(store.parent) as address:
        place = Path(f"{address}/volumes.zarr")
        opened = OpenStore(place)
    with pytest.raises(RemoteError):
        opened.read("volume", 0)


def test_bad_addresses_are_told(store, monkeypatch):
    for text, told in (
        ("s3://lab", "expected s3://BUCKET_OR_HOST/PATH"),
        ("http://example.org/v.zarr", "unencrypted; use https"),
    ):
        with pytest.raises(ParamsError, match=told):
            OpenStore(Path(text))
    with pytest.raises(ParamsError, match=r"expected s3://BUCKET/PATH"):
        push_store(store, Path("https://example.org/v.zarr"))
    assert shown(Path("s3://lab/v.zarr")) == "s3://lab/v.zarr"
    for command in ("embed", "train-ldm"):
        words = [command, "--latents", "s3://lab/l.zarr", "--out", "s3://lab/out"]
        result = CliRunner().invoke(app, words)
        assert "--out s3://lab/out: written on this machine alone" in str(result.exception)
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[remote\]'"):
        OpenStore(Path("s3://lab/v.zarr"))


def test_a_bucket_or_a_kind_of_address_that_is_not_there_is_one_line(bucket, store):
    with pytest.raises(ContractError, match=r"s3://nobody/a.zarr: no such bucket; make it") as told:
        push_store(store, Path("s3://nobody/a.zarr"))
    assert "\n" not in str(told.value)
    with pytest.raises(ContractError, match=r"addresses begin with s3://, gs://, https://"):
        OpenStore(Path("ftp://lab/a.zarr"))


def test_repair_of_a_remote_store_is_refused():
    result = CliRunner().invoke(app, ["verify", "s3://lab/v.zarr", "--repair"])
    assert "mends a folder alone" in str(result.exception)


@pytest.mark.slow
def test_training_and_codes_from_s3_are_those_from_disk(
    bucket, latents_path, ldae_path, tmp_path, split
):
    import pandas as pd

    from pipeline.models.model_folder import read_config
    from pipeline.stores.latents import open_latents
    from pipeline.training.latent_diffusion import train_denoiser
    from tests.support.tiny_models import CPU
    from tests.support.tiny_training import ldm

    place = Path("s3://lab/latents.zarr")
    push_store(latents_path, place)
    digests = []
    for number, path in enumerate((latents_path, place)):
        train_denoiser(open_latents(path), split, ldm(), tmp_path / f"m{number}", device=CPU)
        digests.append(read_config(tmp_path / f"m{number}" / "config.json")["weights_sha256"])
        words = ["embed", "--latents", str(path), "--ldae", str(ldae_path)]
        result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / f"{number}.zarr")])
        assert result.exit_code == 0, result.exception
    assert digests[0] == digests[1]
    codes = [OpenStore(tmp_path / f"{n}.zarr").read("y_sem") for n in (0, 1)]
    np.testing.assert_array_equal(*codes)
    assert pd.DataFrame(codes[0]).notna().all(axis=None)
