"""Statistics of latent channels: spread, KL, and whether the posterior has collapsed."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

COLLAPSED_KL = 0.01
"""KL (nats a latent voxel) below which a channel says nothing of the scan."""


class LatentStatistics:
    """Running moments per channel; memory does not grow with the number of scans."""

    def __init__(self) -> None:
        self.scans = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, mean: Float[Tensor, "1 C x y z"], logvar: Float[Tensor, "1 C x y z"]) -> Tensor:
        """Take in a scan's posterior; return its KL a channel (nats, summed over voxels)."""
        mean, logvar = mean[0].double().cpu(), logvar[0].double().cpu()
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1)
        terms = {"mean": mean, "square": mean.square(), "std": (0.5 * logvar).exp(), "kl": kl}
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.scans += 1
        return kl.flatten(1).sum(1)

    def summary(self) -> list[dict[str, Any]]:
        """Return one record a channel.

        `mean`, `std`: of posterior means over scans and voxels. `between_scans`: their standard
        deviation between scans, root mean square over voxels. `posterior_std`: mean over scans and
        voxels. `kl_per_voxel`: nats. `collapsed`: the KL is below 0.01 nats a voxel.
        """
        mean, square, std, kl = (self.sums[k] / self.scans for k in ("mean", "square", "std", "kl"))
        between = (square - mean.square()).clamp(min=0)
        records = []
        for channel in range(len(mean)):
            own = float(mean[channel].mean())
            spread = float(square[channel].mean()) - own**2
            nats = float(kl[channel].mean())
            records.append(
                {
                    "channel": channel,
                    "mean": own,
                    "std": max(spread, 0.0) ** 0.5,
                    "between_scans": float(between[channel].mean()) ** 0.5,
                    "posterior_std": float(std[channel].mean()),
                    "kl_per_voxel": nats,
                    "kl": nats * mean[channel].numel(),
                    "collapsed": nats < COLLAPSED_KL,
                }
            )
        return records
