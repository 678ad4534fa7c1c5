"""Bad input to encode: one line, exit code 2, nothing half-written, nothing lost."""

import errno
import os
import resource
import shutil
import subprocess
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import zarr

from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder
from pipeline.runtime.files import lock_store
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.params import EncodeParams
from stages.cli import main
from tests.support.volumes import make_volumes, subjects

CPU = torch.device("cpu")
PARAMS = EncodeParams(chunk_scans=8, precision="fp32")
FP32 = ("--set", "encode.precision=fp32")


@pytest.fixture
def autoencoder(autoencoder_path):
    return load_autoencoder(autoencoder_path, device=CPU)


@pytest.fixture
def refused(monkeypatch, capsys, autoencoder_path):
    """Run `pipeline encode` and return its one line."""

    def run(source, out, *more, lines_before=0):
        arguments = ["--input", source, "--out", out, "--ae", autoencoder_path, *more]
        monkeypatch.setattr("sys.argv", ["pipeline", "encode", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2
        assert len(lines) == lines_before + 1
        return lines[-1]

    return run


def test_latents_as_input_are_refused(refused, latents_path, tmp_path):
    assert "expected volumes" in refused(latents_path, tmp_path / "l.zarr")
    assert not (tmp_path / "l.zarr").exists()


@pytest.mark.parametrize("file", ["zarr.json", "posterior_mean/zarr.json"])
def test_onto_a_store_with_a_hurt_record_the_remedy_is_repair(
    refused, volumes, tmp_path, file, latents_path
):
    out = shutil.copytree(latents_path, tmp_path / "l.zarr")
    text = (out / file).read_text()
    (out / file).write_text(text.replace("20", "21", 1))
    line = refused(volumes.path, out, *FP32)
    assert "damaged" in line
    assert "--repair`" in line


def test_another_kind_of_store_is_never_written_over(refused, volumes, tmp_path):
    precious = make_volumes(tmp_path / "v.zarr", subjects(3))
    for more in ([], ["--replace"]):
        assert "volumes" in refused(volumes.path, precious.path, *more)
    zarr.create_group(tmp_path / "foreign.zarr").attrs["owner"] = "someone"
    for more in ([], ["--replace"]):
        assert str(tmp_path / "foreign.zarr") in refused(
            volumes.path, tmp_path / "foreign.zarr", *more
        )
    assert len(open_volumes(precious.path)) == 3
    assert zarr.open_group(tmp_path / "foreign.zarr").attrs["owner"] == "someone"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_path_that_is_something_else_is_refused(refused, volumes, tmp_path, kind):
    out = tmp_path / "thesis"
    precious = out if kind == "file" else out / "thesis.txt"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    assert "no Zarr store" in refused(volumes.path, out)
    assert precious.read_text() == "precious"


def test_refusals_come_before_preprocessing(refused, tmp_path, latents_path):
    """A folder of images whose store cannot be written is not preprocessed first."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "sub-1.nii.gz").write_bytes(b"not read")
    (tmp_path / "thesis").write_text("precious")
    assert "no Zarr store" in refused(images, tmp_path / "thesis")
    old = shutil.copytree(latents_path, tmp_path / "l.zarr")
    attributes = dict(zarr.open_group(old).attrs)
    del attributes["record_sha256"]
    attributes["digests"]["autoencoder"] = "another"
    zarr.open_group(old).attrs.put(attributes)
    assert "another autoencoder or precision; choose a new --out" in refused(images, old)
    with lock_store(tmp_path / "busy.zarr"):
        assert "another process is writing it" in refused(images, tmp_path / "busy.zarr")
    assert not list(tmp_path.glob("*.input"))


def test_images_that_are_nan_are_refused_in_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from the repository's params.yaml
    nib.save(
        nib.Nifti1Image(np.full((40, 48, 36), np.nan, np.float32), np.diag([5, 5, 5, 1])),
        tmp_path / "sub-1.nii.gz",
    )
    options = ["--workers", "1", "--quiet"]
    line = refused(tmp_path / "sub-1.nii.gz", tmp_path / "l.zarr", *options, lines_before=1)
    assert "no scan passed" in line
    assert "NaN" in (tmp_path / "l.input" / "quarantine.csv").read_text()
    assert not (tmp_path / "l.zarr").exists()


def test_another_schema_version_is_refused(refused, volumes, tmp_path):
    path = tmp_path / "v.zarr"
    shutil.copytree(volumes.path, path)
    group = zarr.open_group(path)
    attributes = dict(group.attrs) | {"schema_version": 99}
    del attributes["record_sha256"]
    group.attrs.put(attributes)
    assert "schema version 99, expected 1" in refused(path, tmp_path / "l.zarr")


def test_volumes_on_another_grid_are_refused(tmp_path, volumes, autoencoder):
    other = autoencoder.grid.model_copy(update={"shape": (8, 8, 8)})
    autoencoder = replace(autoencoder, grid=other)
    with pytest.raises(ContractError, match=r"grid 16×24×20 of 3×3×3 mm.*trained on 8×8×8"):
        encode_volumes(volumes, autoencoder, tmp_path / "l.zarr", PARAMS, device=CPU)


def test_latents_that_are_nan_are_refused_by_name(tmp_path, volumes, autoencoder, monkeypatch):
    original = autoencoder.net.encode

    def encode(x):
        mean, logvar = original(x)
        mean[1] = np.nan
        return mean, logvar

    monkeypatch.setattr(autoencoder.net, "encode", encode)
    with pytest.raises(ContractError, match="NaN or infinite for sub-001, sub-005"):
        encode_volumes(volumes, autoencoder, tmp_path / "l.zarr", PARAMS, device=CPU)
    assert not (tmp_path / "l.zarr").exists()


def test_volumes_that_are_not_uint8_are_refused(tmp_path, volumes, autoencoder):
    path = tmp_path / "v.zarr"
    shutil.copytree(volumes.path, path)
    group = zarr.open_group(path)
    group.create_array("volume", shape=(20, 16, 24, 20), dtype="float32", overwrite=True)
    group["volume"][:] = np.nan
    attributes = dict(group.attrs)
    for key in ("record_sha256", "units"):
        attributes.pop(key)
    group.attrs.put(attributes | {"units": {"rows": 16, "sha256": ["", ""]}})
    with pytest.raises(ContractError, match="volumes are float32, expected uint8"):
        encode_volumes(open_volumes(path), autoencoder, tmp_path / "l.zarr", PARAMS, device=CPU)


def test_file_size_limit_is_one_line_and_the_old_store_stays(
    tmp_path, volumes, autoencoder, latents_path
):
    """The operating system's own refusal, in the midst of a chunk."""
    out = tmp_path / "l.zarr"
    few = make_volumes(tmp_path / "few.zarr", subjects(2))
    encode_volumes(few, autoencoder, out, PARAMS, device=CPU)
    before = open_latents(out).digest
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ContractError, match="cannot be written") as caught:
            encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert open_latents(out).digest == before
    encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    assert open_latents(out).digest == open_latents(latents_path).digest


def test_full_disk_is_one_line_and_finished_chunks_are_kept(
    tmp_path, volumes, autoencoder, latents_path, monkeypatch
):
    from zarr.storage import LocalStore

    out, chunks, original = tmp_path / "l.zarr", [], LocalStore.set

    async def filling_up(self, key, value):
        if "/c/" in key:
            chunks.append(key)
            if len(chunks) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await original(self, key, value)

    monkeypatch.setattr(LocalStore, "set", filling_up)
    with pytest.raises(ContractError, match="No space left"):
        encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU)
    assert not out.exists()
    monkeypatch.undo()
    assert encode_volumes(volumes, autoencoder, out, PARAMS, device=CPU).encoded == 12
    assert open_latents(out).digest == open_latents(latents_path).digest


@pytest.fixture
def mounted(tmp_path):
    """Mount a small file system of its own, where this user may; (folder, remount)."""
    folder = tmp_path / "small disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this user may not mount a file system")

    try:
        yield folder, mount
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_disk_that_is_really_full(refused, volumes, mounted, autoencoder, latents_path):
    folder, mount = mounted
    mount("size=72k")
    out = folder / "l.zarr"
    line = refused(volumes.path, out, "--quiet", "--set", "encode.chunk_scans=2", *FP32)
    assert "No space left" in line
    assert not out.exists()
    assert (folder / "l.zarr.building").exists()
    mount("remount,size=4m")
    params = EncodeParams(chunk_scans=2, precision="fp32")
    summary = encode_volumes(volumes, autoencoder, out, params, device=CPU)
    assert summary.encoded < 20
    mean = open_latents(latents_path).read("posterior_mean")
    np.testing.assert_array_equal(open_latents(out).read("posterior_mean"), mean)


def test_a_read_only_disk_is_one_line(refused, volumes, mounted):
    folder, mount = mounted
    mount("size=1m,ro")
    assert "cannot be written (Read-only" in refused(volumes.path, folder / "l.zarr")
    assert list(folder.iterdir()) == []


def test_read_only_folder_is_one_line(tmp_path, volumes, autoencoder):
    folder = tmp_path / "sealed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user (root) writes in read-only folders")
    with pytest.raises(ContractError, match="cannot be written"):
        encode_volumes(volumes, autoencoder, folder / "l.zarr", PARAMS, device=CPU)
