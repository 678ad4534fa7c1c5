"""The LDAE that ships with the package, with the autoencoder that does."""

import numpy as np
import pytest
import torch

from pipeline.imaging.atlas.mni152 import load_template, mni_grid
from pipeline.models.bundled import BUNDLED
from pipeline.models.bundled_ldae import BUNDLED_LDAE, MAX_BUNDLED_BYTES
from pipeline.models.frozen import load_autoencoder, load_ldae, on_grid
from pipeline.models.inference import load_models
from schemas.evaluation import EvaluateParams
from schemas.grid import Grid, GridParams
from tests.support.tiny_models import CPU

WHOLE, DEFAULT = GridParams(shape=(64, 80, 64), zooms=3.0), GridParams()

# Goes when the weights are there: nothing here is to be left out then.
pytestmark = pytest.mark.skipif(not BUNDLED_LDAE.is_dir(), reason="no weights in the package yet")


def template_latent(grid: GridParams) -> torch.Tensor:
    """Return the latent of the template's brain on a grid, as a store has it."""
    volume, brain = load_template(grid)
    autoencoder = on_grid(load_autoencoder(BUNDLED, device=CPU), mni_grid(grid))
    with torch.inference_mode():
        return autoencoder.net.encode(torch.from_numpy(volume * brain)[None, None])[0].half()


def test_it_is_small_and_goes_with_the_autoencoder_of_the_package():
    assert sum(p.stat().st_size for p in BUNDLED_LDAE.iterdir()) <= MAX_BUNDLED_BYTES
    ldae, autoencoder = (
        load(p, device=CPU) for load, p in ((load_ldae, BUNDLED_LDAE), (load_autoencoder, BUNDLED))
    )
    assert ldae.config["autoencoder_digest"] == autoencoder.digest
    assert tuple(ldae.config["latent_shape"]) == (8, 16, 20, 16)
    assert Grid.model_validate(ldae.config["grid"]).same_voxels(mni_grid(WHOLE))
    assert len((BUNDLED_LDAE / "README.md").read_text()) > 500


def test_the_template_has_the_same_code_on_the_grid_of_a_new_study():
    """Autoencoders see a little of how much air there is, so not to the last bit."""
    net = load_ldae(BUNDLED_LDAE, device=CPU).net
    with torch.inference_mode():
        one, other = (
            net.embed(net.diffusion.standardise(template_latent(grid).float()))
            for grid in (WHOLE, DEFAULT)
        )
    assert (one - other).norm() < 0.1 * one.norm()


@pytest.mark.slow
@pytest.mark.parametrize("grid", [WHOLE, DEFAULT], ids=["own", "smaller"])
def test_a_brain_comes_back_from_its_codes(grid):
    models = load_models(BUNDLED, BUNDLED_LDAE, EvaluateParams(), device=CPU)
    z_0 = models.standardise(template_latent(grid))
    codes = models.infer_codes(z_0)
    assert 0.8 < float(codes.x_T.std()) < 1.2
    returned = models.sample(codes.y_sem, codes.x_T)
    back, direct = (models.decode(z)[0].numpy() for z in (returned, z_0))
    _, brain = load_template(grid)
    assert np.abs(back - direct)[brain].mean() < 0.01
