"""y_sem of a store of latents."""

import dataclasses

import numpy as np
import pytest

from pipeline.encoding.embed import embed_latents
from pipeline.models.frozen import load_ldae
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from schemas.params import EmbedParams
from tests.support.tiny_models import CPU


@pytest.mark.slow
def test_embedding_is_y_sem_of_the_posterior_mean(tmp_path, latents_path, ldae_path, caplog):
    latents, ldae = open_latents(latents_path), load_ldae(ldae_path, device=CPU)
    out = tmp_path / "semantics.zarr"
    assert embed_latents(latents, ldae, out, EmbedParams(batch_size=3), device=CPU) == 20
    written = OpenStore(out, kind="semantics").read("y_sem", 7)
    mean = latents.load(["sub-007"]).mean.float()
    expected = ldae.net.embed(ldae.net.diffusion.standardise(mean))[0]
    np.testing.assert_allclose(written, expected.detach().numpy(), atol=1e-4)
    assert embed_latents(latents, ldae, out, EmbedParams(), device=CPU) == 20
    assert "made anew" not in caplog.text
    other = dataclasses.replace(ldae, digest="another")
    embed_latents(latents, other, out, EmbedParams(), device=CPU)
    assert "semantics.zarr: y_sem of another LDAE, made anew" in caplog.text
