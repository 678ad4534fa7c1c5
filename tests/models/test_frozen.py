"""Frozen models are loaded whole or not at all."""

import json
import shutil

import pytest

from pipeline.models.frozen import load_autoencoder
from schemas.errors import ContractError
from tests.support.tiny_models import CPU


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "kind"])
def test_damaged_model_is_refused_in_one_line(tmp_path, autoencoder_path, damage):
    path = tmp_path / "ae"
    shutil.copytree(autoencoder_path, path)
    weights = path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(data[:-10])
    elif damage == "flipped":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "missing":
        weights.unlink()
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"kind": "ldm"}))
    with pytest.raises(ContractError) as caught:
        load_autoencoder(path, device=CPU)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
