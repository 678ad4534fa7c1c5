"""What a reconstruction from y_sem must beat without sampling: the mean brain, PCA, its modes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.rivals.latent_pca import LatentPca
from pipeline.study.study import Study

VolumesByMethod = dict[str, Float[Tensor, "B ..."]]


def linear_volumes(
    study: Study,
    pca: LatentPca,
    scan_ids: Sequence[str],
    other_ids: Sequence[str],
    *,
    mean_brain: Float[Tensor, "1 X Y Z"] | None = None,
) -> VolumesByMethod:
    """Return what linear maps of the latents give of some scans, without sampling.

    `mean_brain` is the decoded mean training latent, given where it was made before,
    `pca_projection` the decoded projection of a scan on the components, `pca_other` that of another
    subject's scan, (B, 1, X, Y, Z), where `other_ids` names one of each. `mode_projection` is the
    decoded mean latent plus what the modes of y_sem hold of the scan, where y_sem has modes.
    """
    models = study.models

    def decoded(latents: Tensor) -> Tensor:
        return models.decode(models.standardise(latents))

    # The other subject of one scan is the next scan of the batch: each is decoded once.
    ids = list(dict.fromkeys([*scan_ids, *other_ids]))
    projections = dict(zip(ids, decoded(pca.project(study.latents.load(ids).mean)), strict=True))
    if mean_brain is None:
        mean_brain = decoded(pca.mean_latent)
    volumes = {
        "mean_brain": mean_brain.expand(len(scan_ids), -1, -1, -1),
        "pca_projection": torch.stack([projections[scan] for scan in scan_ids]),
    }
    if other_ids:
        volumes["pca_other"] = torch.stack([projections[scan] for scan in other_ids])[:, None]
    if models.has_modes:
        volumes["mode_projection"] = models.decode(models.mode_latent(study.y_sem(scan_ids)))
    return volumes
