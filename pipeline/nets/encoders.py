"""What every semantic encoder has.

`reads` tells whether it takes latents or volumes, `dim` is the length of y_sem, `mixes_batch`
whether training statistics are those of the whole batch, `fit_input` and `fit_output` set what the
training scans have in common.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SemanticEncoder(nn.Module):
    """What every semantic encoder has."""

    reads: Literal["latent", "volume"] = "latent"
    mixes_batch = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def fit_input(self, centre: Float[Tensor, "C X Y Z"], spread: Float[Tensor, "C X Y Z"]) -> None:
        """Set the mean of standardised training latents and the unit of deviations from it."""

    @torch.no_grad()
    def fit_output(self, batches: Iterable[Tensor]) -> None:  # noqa: ARG002 (none here)
        """Set the statistics that standardise y_sem, where it is. Leaves evaluation mode."""
        self.eval()
