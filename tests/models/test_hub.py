"""Weights by name, from a local server that speaks a hub's API."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from pipeline.models.hub import hub_folder, is_hub_name, parse_hub_name
from pipeline.models.hub_export import write_hub_folder
from pipeline.runtime.digests import digest_file
from schemas.errors import ContractError, ParamsError
from stages.cli import app
from tests.support.command_line import environment
from tests.support.hub_server import COMMIT, serve_hub

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed"
)
FETCH = """
import json, sys
from pipeline.models.hub import hub_folder
from schemas.errors import PipelineError
try:
    print(json.dumps({"folder": str(hub_folder(sys.argv[1]))}))
except PipelineError as error:
    print(json.dumps({"error": str(error)}))
"""


def test_names_have_a_revision():
    name = parse_hub_name("hf://lab/ldae@v1#0123abcd")
    assert (name.repo, name.revision, name.sha256) == ("lab/ldae", "v1", "0123abcd")
    assert parse_hub_name("hf:/lab/ldae/models/ae@v1").folder == "models/ae"
    assert is_hub_name(Path("hf://lab/ldae@v1"))
    assert not is_hub_name(Path("models/ldae"))
    for text in ("hf://lab/ldae", "hf://lab@v1", "hf://lab/../x@v1", "hf://lab/ldae@v1#xyz"):
        with pytest.raises(ParamsError, match="expected hf://OWNER/REPO@REVISION"):
            parse_hub_name(text)


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[hub\]'"):
        hub_folder("hf://lab/ldae@v1")


def test_an_exported_model_is_the_same_under_its_new_card(repository, tmp_path):
    (repository / "metrics.json").write_text("{}")
    options = {"kind": "ldae", "licence": "cc-by-4.0"}
    write_hub_folder(repository, tmp_path / "out", **options)
    out = tmp_path / "again"
    write_hub_folder(tmp_path / "out", out, **options)
    for name in ("model.safetensors", "config.json", "metrics.json"):
        assert (out / name).read_bytes() == (repository / name).read_bytes()
    _, head, text = (out / "README.md").read_text().split("---\n")
    metadata = yaml.safe_load(head)
    assert (metadata["license"], text) == ("cc-by-4.0", "\na card")
    assert metadata["weights_sha256"] == digest_file(out / "model.safetensors")


def test_a_damaged_model_is_not_exported(repository, tmp_path):
    content = bytearray((repository / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (repository / "model.safetensors").write_bytes(content)
    with pytest.raises(ContractError, match="damaged, its sha256 differs"):
        write_hub_folder(repository, tmp_path / "out", kind="ldae", licence="mit")
    assert not (tmp_path / "out").exists()


def test_an_upload_needs_a_licence(repository, tmp_path):
    words = ["export-ldae", "--ldae", str(repository), "--out", str(tmp_path), "--format", "hub"]
    result = CliRunner().invoke(app, words)
    assert "give the --licence" in str(result.exception)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    save_file({"a": np.arange(5.0)}, root / "model.safetensors")
    config = {"kind": "ldae", "weights_sha256": digest_file(root / "model.safetensors")}
    (root / "config.json").write_text(json.dumps(config))
    (root / "README.md").write_text("a card")
    (root / "training.pkl").write_text("never fetched")
    return root


def fetch(name: str, home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Fetch in a process of its own: the client reads its settings when it is imported."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", FETCH, name],
        env=environment(**settings, HF_HUB_DISABLE_TELEMETRY="1", **more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout.splitlines()[-1]))


@needs_client
def test_a_model_is_fetched_once_and_used_without_a_network(repository, tmp_path):
    home = tmp_path / "home"
    with serve_hub(repository) as (endpoint, asked):
        folder = Path(fetch(f"hf://lab/ldae@{COMMIT}", home, endpoint)["folder"])
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
        assert not [path for path in asked if path.endswith(".pkl")]
        before = len(asked)
        assert fetch(f"hf://lab/ldae@{COMMIT}", home, endpoint)["folder"] == str(folder)
        assert len(asked) == before
    offline = fetch("hf://lab/ldae@main", home, endpoint, HF_HUB_OFFLINE="1")
    assert offline.get("folder", str(folder)) == str(folder)
    other = fetch("hf://lab/ldae@v9", home, endpoint, HF_HUB_OFFLINE="1")
    assert "not in the cache, and the hub cannot be reached" in other["error"]


@needs_client
def test_what_is_no_model_is_one_line(repository, tmp_path):
    with serve_hub(repository) as (endpoint, _):

        def error(name: str, home: str) -> str:
            message = fetch(name, tmp_path / home, endpoint)["error"]
            assert "\n" not in message
            return message

        assert "its weights have sha256" in error(f"hf://lab/ldae@{COMMIT}#00000000", "one")
        assert "no such revision" in error("hf://lab/ldae@v9", "one")
        assert "no such repository" in error("hf://lab/other@v1", "one")
        (repository / "config.json").write_text("{}")
        assert "no model folder of this project" in error(f"hf://lab/ldae@{COMMIT}", "two")
