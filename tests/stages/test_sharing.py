"""Two colleagues and a remote: what one precomputed, the other uses."""

from pathlib import Path

import pytest
import yaml

from pipeline.runtime.digests import digest_file
from pipeline.stores.open_store import OpenStore
from tests.support.command_line import CHEAP, save_brain, store_digest
from tests.support.git_study import git, init
from tests.support.tiny_study import run

OPTIONS = [
    *(f"--set=preprocess.{value}" for value in CHEAP),
    *("--set=train_ldm.steps=2", "--set=train_ldm.batch_size=2"),
    *("--set=train_ldm.denoiser.base_channels=8", "--set=encode.precision=fp32"),
    *("--set=cohort.split.train=0.5", "--set=cohort.split.val=0.5"),
]


def call(*words: str, cwd: Path) -> str:
    result = run(*words, cwd=cwd)
    assert result.returncode == 0, f"{words}: {result.stdout} {result.stderr}"
    return result.stdout + result.stderr


@pytest.mark.parametrize("share", ["latents", "volumes"])
def test_what_is_shared_is_chosen_with_the_study(share, tmp_path):
    init(tmp_path / "study", "--share", share)
    stages = yaml.safe_load((tmp_path / "study" / "dvc.yaml").read_text())["stages"]
    outs = {
        name: options
        for stage in stages.values()
        for out in stage["outs"]
        if isinstance(out, dict)
        for name, options in out.items()
    }
    for store in ("data/cohort", "data/latents.zarr", "data/semantics.zarr", "data/crossfit"):
        assert outs[store] == {"persist": True}
    cached = outs["data/volumes.zarr"].get("cache", True)
    assert cached == (share == "volumes") == ("data/volumes.zarr.records.json" in outs)
    ignored = (tmp_path / "study" / ".dvcignore").read_text().split()
    assert {"/data/cohort/bids/", "/data/cohort/dicom/"} <= set(ignored)


@pytest.mark.slow
def test_two_colleagues_share_what_was_precomputed(tmp_path):
    """A pushes; B trains from latents alone, adds scans; A goes back to older latents."""
    for seed in range(4):
        save_brain(tmp_path / "nifti" / f"sub-{seed}.nii.gz", seed)
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    git(a, "init", "--quiet")
    init(a, "--input", tmp_path / "nifti", "--share", "volumes", *OPTIONS)
    call("dvc", "repro", "train_ldm", cwd=a)
    call("dvc", "remote", "add", "-d", "shared", str(tmp_path / "remote"), cwd=a)
    git(a, "add", "-A")
    git(a, "commit", "--quiet", "-m", "four scans")
    call("dvc", "push", cwd=a)
    latents = Path("data", "latents.zarr")
    four = store_digest(a / latents)

    git(tmp_path, "clone", "--quiet", str(a), "b")
    call("dvc", "pull", "data/cohort", str(latents), cwd=b)
    assert store_digest(b / latents) == four
    assert not (b / "data" / "volumes.zarr").exists()
    weights = Path("models", "ldm", "model.safetensors")
    call("dvc", "repro", "--single-item", "--force", "train_ldm", cwd=b)
    assert digest_file(b / weights) == digest_file(a / weights)
    call("dvc", "pull", "--force", "--allow-missing", cwd=b)

    for seed in (4, 5, 6):
        save_brain(tmp_path / "nifti" / f"sub-{seed}.nii.gz", seed)
    told = call("dvc", "repro", "encode", cwd=b)
    assert "4 from before" in told  # volumes
    assert "7 scans, 3 encoded now, 4 from before" in told
    git(b, "add", "-A")
    git(b, "commit", "--quiet", "-m", "three more")
    call("dvc", "push", cwd=b)

    git(a, "pull", "--quiet", str(b), "HEAD")
    call("dvc", "pull", "data/latents.zarr", cwd=a)
    assert len(OpenStore(a / latents)) == 7
    git(a, "checkout", "--quiet", "HEAD~1")
    call("dvc", "checkout", "--allow-missing", cwd=a)
    assert store_digest(a / latents) == four
