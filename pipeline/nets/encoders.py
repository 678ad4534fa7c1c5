"""The interface of semantic encoders.

`reads` is the kind of input, latents or volumes; `dim` the length of y_sem. Where `mixes_batch` is
set, training statistics are those of the whole batch. `set_input_statistics` and
`estimate_output_statistics` take in what the training scans have in common.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SemanticEncoder(nn.Module):
    """A network from latents, or volumes, to y_sem."""

    reads: Literal["latent", "volume"] = "latent"
    mixes_batch = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def set_input_statistics(
        self, centre: Float[Tensor, "C X Y Z"], spread: Float[Tensor, "C X Y Z"]
    ) -> None:
        """Set the mean of standardised training latents and the unit of deviations from it."""

    @torch.no_grad()
    def estimate_output_statistics(self, batches: Iterable[Tensor]) -> None:  # noqa: ARG002 (none here)
        """Set the statistics that standardise y_sem, where it is. Leaves evaluation mode."""
        self.eval()
