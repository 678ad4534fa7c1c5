"""A step along principal components of latents."""

import numpy as np

from pipeline.rivals.pca_direction import fit_pca_direction
from schemas.evaluation import ProbeParams


def test_a_step_along_pca_moves_its_own_score_by_one(latents, scans):
    along = fit_pca_direction(latents, scans, ProbeParams(inner_folds=2), "diagnosis:AD")
    latent = latents.load(["sub-016"]).mean.float()
    moved = (latent + along.moves([0.0, 1.0, 2.5])).flatten(1).numpy()
    start = along.position(latent.flatten(1).numpy())[0]
    np.testing.assert_allclose(along.position(moved) - start, [0, 1, 2.5], atol=1e-4)
    assert fit_pca_direction(latents, scans, ProbeParams(inner_folds=2), "nothing:AD") is None
