"""What a reconstruction from y_sem must beat: the mean brain, PCA, and y_sem's modes alone."""

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


def drawn_means(
    study: Study,
    scan_ids: Sequence[str],
    other_ids: Sequence[str],
    *,
    first: Float[Tensor, "B X Y Z"] | None = None,
) -> VolumesByMethod:
    """Return means of decoded volumes over `evaluate.draws` random x_T, the same for every row.

    `ldae_y_sem_mean` has the scan's own y_sem, `ldae_other_y_sem_mean` that of another subject's
    scan, (B, 1, X, Y, Z), where `other_ids` names one of each; `modes_alone` the own y_sem with the
    learned field of G left out, where y_sem has modes. `first`, where it was made before, are the
    decoded volumes of the first draw: of all own y_sem, then of all others.
    """
    models, draws = study.models, study.params.draws
    own = study.y_sem(scan_ids)
    guided = torch.cat([own, study.y_sem(other_ids)]) if other_ids else own
    sums: dict[str, Tensor] = {}
    for draw in range(draws):
        noise = torch.cat([study.noise(scan_id, draw) for scan_id in scan_ids])
        repeated = noise.repeat(len(guided) // len(own), 1, 1, 1, 1)
        known = first if draw == 0 else None
        made = models.decode(models.sample(guided, repeated)) if known is None else known
        parts = {"guided": made}
        if models.has_modes:
            latents = models.sample(own, noise, modes_alone=True)
            parts["modes_alone"] = models.decode(latents)
        sums = {name: volumes + sums.get(name, 0) for name, volumes in parts.items()}
    if not sums:
        return {}
    means = {name: total / draws for name, total in sums.items()}
    both = means.pop("guided")
    rows = {"ldae_y_sem_mean": both[: len(own)]}
    study.drawn.update(zip(scan_ids, rows["ldae_y_sem_mean"], strict=True))
    if other_ids:
        rows["ldae_other_y_sem_mean"] = both[len(own) :, None]
    return rows | means
