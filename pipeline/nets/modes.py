"""Principal modes of the training latents: where registered brains differ most."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Modes(nn.Module):
    """Fixed orthonormal fields on the latent grid, fitted once on training latents (PCA)."""

    modes: Tensor
    size: Tensor

    def __init__(self, *, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("modes", torch.zeros(count, *shape))
        self.register_buffer("size", torch.ones(()))

    def fit(self, deviations: Float[Tensor, "N C X Y Z"]) -> None:
        """Set the modes to the leading ones of centred latents; those beyond N - 1 stay zero.

        `size` is the root mean square of an amount, so that amounts are of order 1 and keep their
        order: the later, noisier modes are not blown up to the size of the first.
        """
        flat = deviations.flatten(1)
        _, values, modes = torch.linalg.svd(flat, full_matrices=False)
        count = min(len(self.modes), len(flat) - 1)
        self.modes.zero_()
        self.modes[:count] = modes[:count].reshape(count, *self.modes.shape[1:])
        self.size.copy_((values[:count].square().mean() / len(flat)).sqrt())

    def project(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K"]:
        """Return how much of each mode is in latents."""
        return torch.einsum("bcxyz,kcxyz->bk", deviation, self.modes) / self.size

    def compose(self, amounts: Float[Tensor, "B K"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the sum of the modes, each times its amount."""
        return torch.einsum("bk,kcxyz->bcxyz", amounts * self.size, self.modes)
