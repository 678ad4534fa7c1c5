"""Contracts: JSON Schemas in step with the code; the documented lines open a store."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import zarr
from packaging.requirements import Requirement

from schemas.json_schema import json_schemas
from schemas.stores import StoreRecord
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_exported_schema_is_in_step(name):
    exported = json.loads((ROOT / "schemas" / "json" / name).read_text())
    assert exported == json_schemas()[name], "run: python -m stages.json_schemas"


def test_no_exported_schema_is_left_over():
    assert {f.name for f in (ROOT / "schemas" / "json").iterdir()} == set(json_schemas())


def test_attributes_of_stores_follow_the_schema(latents_path, volumes):
    for path in (latents_path, volumes.path):
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        record = StoreRecord.model_validate(attributes)
        assert len(record.units.sha256) == -(-20 // record.units.rows)
        assert set(attributes) == set(json_schemas()["store.json"]["properties"])


def test_the_documented_lines_open_a_latent_store(tmp_path, latents_path):
    text = (ROOT / "docs" / "latent-store.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = [line for line in block.splitlines() if line]
    assert len(lines) == 5
    assert {m for line in lines for m in re.findall(r"^(?:import|from) (\w+)", line)} == {"zarr"}
    shutil.copytree(latents_path, tmp_path / "data" / "latents.zarr")
    alone = f"import sys; sys.path.insert(0, {str(only(tmp_path / 'site', 'zarr'))!r})\n"
    blind = subprocess.run(
        [sys.executable, "-I", "-S", "-c", alone + "import torch"], capture_output=True, check=False
    )
    assert blind.returncode == 1
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-c", alone + block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith("sub-000 (20, 3, 4, 6, 5) float16 ")


def only(folder: Path, name: str) -> Path:
    """Return a site-packages with one distribution and what it needs, nothing else."""
    folder.mkdir()
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for part in {Path(str(file)).parts[0] for file in found.files or ()} - {
            "..",
            "__pycache__",
        }:
            if not (folder / part).exists():
                (folder / part).symlink_to(found.locate_file(part))
        needed = [Requirement(text) for text in found.requires or ()]
        waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return folder
