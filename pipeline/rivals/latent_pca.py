"""Principal components of the training latents: what a linear map of as many numbers holds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.cohort.subjects import spread
from pipeline.probes.pca_rivals import fit_full_pca
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.stores.latents import LatentStore


@dataclass(frozen=True, slots=True)
class LatentPca:
    """Principal components of the training latents: posterior means, as the store has them."""

    mean: Float[Tensor, " latent"]
    components: Float[Tensor, "K latent"]
    """Orthonormal rows, as many as y_sem has numbers, or one fewer than scans."""
    shape: tuple[int, ...]
    """(channel, x, y, z)."""

    @classmethod
    def of_training(cls, latents: LatentStore, scans: pd.DataFrame, dim: int) -> "LatentPca | None":
        """Return at most `dim` components of the training scans of a manifest.

        None where there are fewer than two. Of many training scans, MAX_LATENTS are taken.
        """
        train = spread(scans[scans["split"] == "train"], MAX_LATENTS)
        if len(train) < 2:
            return None
        means = latents.load(list(train["scan_id"].astype(str))).mean.float()
        fitted = fit_full_pca(means.flatten(1).numpy(), dim)
        mean, components = (
            torch.from_numpy(np.asarray(part, dtype=np.float32))
            for part in (fitted.mean_, fitted.components_)
        )
        return cls(mean, components, tuple(means.shape[1:]))

    def scores(self, latents: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the amounts of the components in latents."""
        scores: Tensor = (latents.float().flatten(1) - self.mean) @ self.components.T
        return scores

    def project(self, latents: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the mean latent plus what the components hold of each."""
        projected: Tensor = self.mean + self.scores(latents) @ self.components
        return projected.reshape(-1, *self.shape)

    @property
    def mean_latent(self) -> Float[Tensor, "1 C X Y Z"]:
        """Return the mean training latent."""
        return self.mean.reshape(1, *self.shape)
