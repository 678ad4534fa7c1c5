"""Principal modes of the training latents: where registered brains differ most."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.nets.centred import centred


@dataclass(frozen=True, slots=True)
class OtherPeople:
    """Mean and covariance of people who are not at hand, as deviations from the same centre."""

    count: float
    """As how many people they count."""
    mean: Float[Tensor, "C X Y Z"]
    fields: Float[Tensor, "K C X Y Z"]
    """Their principal modes, each as long as its standard deviation."""

    def rows(self) -> Float[Tensor, "R D"]:
        """Return rows whose squares add up to the people's scatter about the centre."""
        rows: Tensor = self.count**0.5 * torch.cat([self.fields, self.mean[None]]).flatten(1)
        return rows


class PrincipalModes(nn.Module):
    """Fixed orthonormal fields on the latent grid, fitted once on training latents (PCA).

    A mode explains more of the scans that it was fitted on than of others: with a hundred scans and
    32 modes three times as much. A network trained on amounts as they are would trust them as
    much. So in training, the decoder of G is given amounts noised to the variance they
    have on held-out scans: `reliability` times their own, and correlated with them accordingly.

    Latents may be on a smaller grid with the same centre: what they lack is air, which deviates
    from none, so that the modes cut to their grid measure the same amounts.
    """

    modes: Tensor
    size: Tensor
    spread: Tensor
    """(K,): standard deviation of the amounts of the scans fitted on."""
    reliability: Tensor
    """(K,): variance of the amounts of unseen scans over that of scans fitted on, at most 1."""

    def __init__(self, *, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("modes", torch.zeros(count, *shape))
        self.register_buffer("size", torch.ones(()))
        self.register_buffer("spread", torch.zeros(count))
        self.register_buffer("reliability", torch.ones(count))

    def fit(
        self,
        deviations: Float[Tensor, "N C X Y Z"],
        folds: Int[Tensor, " N"],
        *,
        loudness: float = 1.0,
        others: OtherPeople | None = None,
    ) -> Float[Tensor, "C X Y Z"]:
        """Set the modes to the leading ones of centred latents; those beyond N - 1 stay zero.

        With `others` they are those of both together, about the centre that deviations count from.
        `size` is such that amounts have a root mean square of `loudness` over scans and modes and
        keep their order: the later, noisier modes are not blown up to the size of the first. The
        reliability is estimated on folds of subjects (0, 1, …), since visits of one are alike.

        Returns
        -------
        The variance of what modes of other folds leave over of a scan; with one fold, of the scan.
        """
        flat = deviations.flatten(1)
        modes, deviation = _leading(flat, len(self.modes), others)
        count = len(modes)
        self.modes.zero_()
        self.modes[:count] = modes.reshape(count, *self.modes.shape[1:])
        self.size.copy_(deviation.square().mean().sqrt() / loudness)
        self.spread.zero_()
        self.spread[:count] = deviation / self.size
        if not folds.any():
            return deviations.square().mean(0)
        known, unseen = torch.zeros_like(self.spread), torch.zeros_like(self.spread)
        left = torch.zeros_like(flat[0])
        for fold in range(int(folds.max()) + 1):
            own = folds == fold
            rest = flat[~own]
            fitted, deviation = _leading(rest, count, others)
            centre = rest.mean(0) if others is None else torch.zeros_like(rest[0])
            amounts = (flat[own] - centre) @ fitted.T
            if others is not None:
                deviation = (rest @ fitted.T).square().mean(0).sqrt()
            known[: len(fitted)] += deviation.square()
            unseen[: len(fitted)] += amounts.square().mean(0)
            left += (flat[own] - centre - amounts @ fitted).square().sum(0)
        ratio = (unseen / known.clamp(min=1e-12)).clamp(max=1)
        self.reliability.copy_(torch.where(known > 0, ratio, 0))
        return (left / len(flat)).reshape(deviations.shape[1:])

    def project(self, deviation: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K"]:
        """Return the amount of each mode in latents."""
        modes = centred(self.modes, deviation.shape[2:])
        return torch.einsum("bcxyz,kcxyz->bk", deviation, modes) / self.size

    def with_noise(
        self, amounts: Float[Tensor, "B K"], noise: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B K"]:
        """Return amounts of scans fitted on as if the modes had been fitted on others.

        `noise` is standard normal.
        """
        kept = self.reliability
        return kept * amounts + (kept * (1 - kept)).sqrt() * self.spread * noise

    def amounts_of(self, y_sem: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Return the amounts, which are the first numbers of y_sem."""
        return y_sem[:, : len(self.spread)]

    def lift(
        self, amounts: Float[Tensor, "B K"], unit: Float[Tensor, "C X Y Z"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the smallest fields f whose `project(f / unit)` are these amounts."""
        measures = (centred(self.modes, unit.shape[1:]) / (unit * self.size)).flatten(1)
        unused = (self.spread == 0).to(measures.dtype)
        gram = measures @ measures.T + torch.diag(unused)
        solved = torch.linalg.solve(gram, torch.where(self.spread > 0, amounts, 0).T)
        lifted: Tensor = (solved.T @ measures).reshape(-1, *unit.shape)
        return lifted

    def compose(self, amounts: Float[Tensor, "B K"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the sum of the modes, each times its amount."""
        return torch.einsum("bk,kcxyz->bcxyz", amounts * self.size, self.modes)


def _leading(
    flat: Float[Tensor, "N D"], count: int, others: OtherPeople | None = None
) -> tuple[Tensor, Tensor]:
    """Return the leading modes of scans and the standard deviation of the amounts of each."""
    if others is None:
        rows, people = flat - flat.mean(0), float(len(flat))
    else:
        rows, people = torch.cat([flat, others.rows()]), len(flat) + others.count
    _, values, modes = torch.linalg.svd(rows, full_matrices=False)
    count = min(count, max(len(rows) - 1, 1))
    return modes[:count], values[:count] / people**0.5
