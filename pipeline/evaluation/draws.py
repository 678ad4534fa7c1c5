"""Brains drawn from y_sem with random x_T, each once, and their means: what y_sem alone tells.

All scans have the same few x_T. So a brain of another person's y_sem with a scan's x_T is that
person's own draw: what a scan is held against costs no sampling of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.study.study import Study


@dataclass(frozen=True, slots=True)
class DrawnBrains:
    """Brains of the y_sem of scans, by the number of the draw of x_T."""

    study: Study
    z_0: dict[tuple[str, int], Float[Tensor, "C x y z"]] = field(default_factory=dict)
    """Sampled latents by scan and draw, on the host."""

    def volumes(self, scan_ids: Sequence[str], draws: Sequence[int]) -> Float[Tensor, "B X Y Z"]:
        """Return the decoded brain of each scan by the draw at the same place."""
        pairs = list(zip(scan_ids, draws, strict=True))
        self._sample(pairs)
        latents = torch.stack([self.z_0[pair] for pair in pairs])
        return self.study.models.decode(latents.to(self.study.models.device))

    def means(self, scan_ids: Sequence[str]) -> Float[Tensor, "B X Y Z"]:
        """Return the mean over `evaluate.draws` of each scan's brains, kept in `study.drawn`."""
        known, draws = self.study.drawn, range(self.study.params.draws)
        missing = [scan for scan in dict.fromkeys(scan_ids) if scan not in known]
        self._sample([(scan, draw) for scan in missing for draw in draws])
        for scan in missing:
            known[scan] = self.volumes([scan] * len(draws), draws).mean(0)
        return torch.stack([known[scan] for scan in scan_ids])

    def means_of_modes(self, scan_ids: Sequence[str]) -> Float[Tensor, "B X Y Z"]:
        """Return the same means with the learned field of G left out of every draw."""
        models, draws = self.study.models, self.study.params.draws
        y_sem = self.study.y_sem(scan_ids)
        total = torch.zeros(())
        for draw in range(draws):
            noise = self.study.noise(draw).expand(len(scan_ids), -1, -1, -1, -1)
            total = total + models.decode(models.sample(y_sem, noise, modes_alone=True))
        return total / draws

    def _sample(self, pairs: Sequence[tuple[str, int]]) -> None:
        """Sample the latents of scans and draws that were not sampled yet."""
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self.z_0]
        if missing:
            y_sem = self.study.y_sem([scan for scan, _ in missing])
            noise = torch.cat([self.study.noise(draw) for _, draw in missing])
            made = self.study.models.sample(y_sem, noise).cpu()
            self.z_0.update(zip(missing, made, strict=True))

    def forget(self, scan_ids: Iterable[str]) -> None:
        """Free the latents of scans that were judged."""
        gone = set(scan_ids)
        for pair in [pair for pair in self.z_0 if pair[0] in gone]:
            del self.z_0[pair]


def drawn_means(
    brains: DrawnBrains, scan_ids: Sequence[str], other_ids: Sequence[str]
) -> dict[str, Float[Tensor, "B ..."]]:
    """Return means over draws: none where `evaluate.draws` is 0.

    `ldae_y_sem_mean` has the scan's own y_sem, `ldae_other_y_sem_mean` that of another subject's
    scan, (B, 1, X, Y, Z), where `other_ids` names one of each; `modes_alone` the own y_sem with the
    learned field of G left out, where y_sem has modes.
    """
    if not brains.study.params.draws:
        return {}
    means = {"ldae_y_sem_mean": brains.means(scan_ids)}
    if other_ids:
        means["ldae_other_y_sem_mean"] = brains.means(other_ids)[:, None]
    if brains.study.models.has_modes:
        means["modes_alone"] = brains.means_of_modes(scan_ids)
    return means
