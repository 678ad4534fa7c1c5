"""A model works on the contrast it was trained on, and on another one if asked."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.encoding.embed import embed_latents
from pipeline.encoding.run import encode_volumes
from pipeline.models.frozen import load_autoencoder, load_ldae
from pipeline.models.model_folder import read_config
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.params import EmbedParams, EncodeParams
from tests.support.tiny_models import CPU


def as_flair(source: Path, out: Path) -> Path:
    """Copy a volume store whose record tells of FLAIR images."""
    shutil.copytree(source, out)
    record = json.loads((out / "zarr.json").read_text())
    attributes = record["attributes"]
    attributes["params"] = {"preprocess": {"contrast": "FLAIR"}}
    attributes.pop("record_sha256")
    attributes["record_sha256"] = digest_of(attributes)
    (out / "zarr.json").write_text(json.dumps(record))
    return out


@pytest.mark.slow
def test_flair_goes_through_models_of_t1w_only_if_asked(
    volumes, autoencoder_path, ldae_path, tmp_path
):
    flair = open_volumes(as_flair(volumes.path, tmp_path / "volumes.zarr"))
    assert (flair.attributes.contrast, volumes.attributes.contrast) == ("FLAIR", "T1w")
    autoencoder = load_autoencoder(autoencoder_path, device=CPU)
    assert read_config(autoencoder_path / "config.json")["contrast"] == "T1w"
    params, out = EncodeParams(chunk_scans=8, precision="fp32"), tmp_path / "latents.zarr"
    told = r"FLAIR images.*trained on T1w.*--set encode.any_contrast=true"
    with pytest.raises(ContractError, match=told):
        encode_volumes(flair, autoencoder, out, params, device=CPU)
    asked = params.model_copy(update={"any_contrast": True})
    encode_volumes(flair, autoencoder, out, asked, device=CPU)
    latents, ldae = open_latents(out), load_ldae(ldae_path, device=CPU)
    assert latents.attributes.contrast == "FLAIR"
    codes = tmp_path / "semantics.zarr"
    with pytest.raises(ContractError, match=r"the LDAE was trained on T1w.*embed.any_contrast"):
        embed_latents(latents, ldae, codes, EmbedParams(), device=CPU)
    embed_latents(latents, ldae, codes, EmbedParams(any_contrast=True), device=CPU)
    assert OpenStore(codes).attributes.contrast == "FLAIR"
