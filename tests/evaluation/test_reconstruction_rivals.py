"""What reconstructions from y_sem are held against."""

import pytest
import torch

from pipeline.evaluation.reconstruction_rivals import linear_volumes
from pipeline.models.ldae import build_ldae
from pipeline.rivals.latent_pca import LatentPca

TWO, OTHERS = ["sub-018", "sub-019"], ["sub-019", "sub-018"]


@pytest.mark.slow
def test_the_mode_projection_has_the_modes_of_the_scan_and_no_more(study):
    models, y_sem = study.models, study.y_sem(TWO)
    count = len(models.ldae.net.estimator.modes.spread)
    projected = models.mode_latent(y_sem)
    torch.testing.assert_close(
        models.embed(projected)[:, :count], y_sem[:, :count], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        models.mode_latent(models.embed(projected)), projected, atol=1e-3, rtol=0
    )


@pytest.mark.slow
def test_linear_rivals_of_a_scan_do_not_depend_on_what_is_beside_it(study):
    pca = LatentPca.of_training(study.latents, study.scans, 16)
    both = linear_volumes(study, pca, TWO, OTHERS)
    alone = linear_volumes(study, pca, TWO[1:], OTHERS[1:])
    assert set(both) == {"mean_brain", "pca_projection", "pca_other", "mode_projection"}
    for name, volumes in alone.items():
        torch.testing.assert_close(both[name][1:], volumes, atol=1e-4, rtol=0)
    torch.testing.assert_close(both["pca_other"][0, 0], both["pca_projection"][1])
    torch.testing.assert_close(both["mean_brain"][0], both["mean_brain"][1])


@pytest.mark.slow
def test_before_training_an_ldae_is_its_modes_alone(models):
    """The learned field begins at zero, so that `modes_alone` is also the LDAE before stage 2."""
    torch.manual_seed(0)
    fresh = build_ldae(models.ldae.config)
    trained = models.ldae.net
    fresh.estimator.modes.load_state_dict(trained.estimator.modes.state_dict())
    x_t, t = torch.randn(2, *models.latent_shape), torch.tensor([300.0, 300.0])
    y_sem = torch.randn(2, fresh.encoder.dim)
    with torch.no_grad():
        alone = fresh.mode_noise(x_t, t, y_sem)
        torch.testing.assert_close(fresh.noises(x_t, t, [y_sem])[0], alone)
        assert (trained.noises(x_t, t, [y_sem])[0] - trained.mode_noise(x_t, t, y_sem)).any()
