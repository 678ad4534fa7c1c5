"""The LDAE that ships with the package, with the autoencoder that does."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.diffusion.schedule import alpha_sigma
from pipeline.imaging.atlas.mni152 import load_template, mni_grid
from pipeline.models.bundled import BUNDLED
from pipeline.models.bundled_ldae import BUNDLED_LDAE, MAX_BUNDLED_BYTES, is_bundled_for
from pipeline.models.frozen import load_autoencoder, load_ldae, on_grid
from pipeline.models.mode_prior import bundled_prior
from pipeline.nets.tissue import tissue_fractions
from schemas.grid import Grid, GridParams
from tests.support.tiny_models import CPU

WHOLE, DEFAULT = GridParams(shape=(64, 80, 64), zooms=3.0), GridParams()


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


@pytest.mark.parametrize(
    ("shape", "zooms", "fits"),
    [((64, 80, 64), 3.0, True), ((56, 72, 64), 3.0, True), ((64, 80, 64), 1.5, False)],
)
def test_it_fits_latents_of_its_autoencoder_and_voxels(shape, zooms, fits):
    """The same autoencoder on finer voxels gives other latents, which may have the same shape."""
    digest = load_autoencoder(BUNDLED, device=CPU, at_use=True).digest
    grid = mni_grid(GridParams(shape=shape, zooms=zooms))
    store = SimpleNamespace(digests={"autoencoder": digest}, grid=grid)
    assert is_bundled_for(store) is fits
    prior = bundled_prior(store, count=50, shape=(8, *(n // 4 for n in shape)))
    assert (prior is not None) is fits


@pytest.mark.slow
def test_the_template_has_the_same_amounts_of_modes_on_the_grid_of_a_new_study():
    """The autoencoder sees a little of how much air there is, so not to the last bit."""
    net = load_ldae(BUNDLED_LDAE, device=CPU).net
    assert net.encoder.modes is not None
    with torch.inference_mode():
        one, other = (
            net.embed(net.diffusion.standardise(template_latent(grid).float()))
            for grid in (WHOLE, DEFAULT)
        )
    modes = len(net.encoder.modes.spread)
    assert (one - other)[:, :modes].norm() < 0.05 * one[:, :modes].norm()
    assert torch.isfinite(other).all()


@pytest.mark.parametrize(
    "grid",
    [pytest.param(WHOLE, id="own", marks=pytest.mark.slow), pytest.param(DEFAULT, id="smaller")],
)
def test_y_sem_of_the_template_tells_its_noise(grid):
    """Exact in the modes, so nearer to the truth than the denoiser alone."""
    net = load_ldae(BUNDLED_LDAE, device=CPU).net
    t = torch.tensor([500.0])
    alpha, sigma = alpha_sigma(net.diffusion.schedule.lambda_at(t))
    with torch.inference_mode():
        z_0 = net.diffusion.standardise(template_latent(grid).float())
        eps = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0))
        x_t = alpha * z_0 + sigma * eps
        alone = net.diffusion.eps(x_t, t)
        exact = net.estimator.exact_noise(alone, x_t, net.embed(z_0), alpha, sigma)
    assert (exact - eps).square().mean() < (alone - eps).square().mean()


@pytest.mark.slow
def test_it_reads_the_tissue_of_the_template():
    """A brain that is nobody's: the mean of many, blurred and of other contrast than scans."""
    volume, brain = load_template(WHOLE)
    encoder = load_ldae(BUNDLED_LDAE, device=CPU).net.encoder
    truth = tissue_fractions(torch.from_numpy(volume * brain)[None, None], 4)
    with torch.inference_mode():
        read = encoder.tissue.net(template_latent(WHOLE).float())
    inside = truth.sum(1, keepdim=True).expand_as(truth) > 0.5
    spread = (truth - truth.mean((0, 2, 3, 4), keepdim=True))[inside].square().mean()
    assert (read - truth)[inside].square().mean() < 0.15 * spread
