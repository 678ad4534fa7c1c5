"""Principal components of training latents."""

import torch

from pipeline.rivals.latent_pca import LatentPca


def test_components_of_all_training_scans_give_those_back_and_of_others_what_they_hold(
    latents, scans, split
):
    pca = LatentPca.of_training(latents, scans, 16)
    assert len(pca.components) == len(split["train"]) - 1
    seen, unseen = (latents.load(split[name]).mean.float() for name in ("train", "test"))
    torch.testing.assert_close(pca.project(seen), seen, atol=2e-3, rtol=0)
    left = (unseen - pca.project(unseen)).flatten(1)
    assert left.abs().max() > 0.01
    torch.testing.assert_close(left @ pca.components.T, torch.zeros(5, 11), atol=1e-3, rtol=0)
