"""Embed scans by the models of all folds, and bring their codes into one space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.crossfit.alignment import PairedCodes, map_between
from pipeline.crossfit.alignment_scans import AlignmentScans
from pipeline.encoding.embed import y_sem_of
from pipeline.models.frozen import FrozenLdae, load_ldae
from pipeline.runtime.progress import counted, progress
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore

LOAD_SCANS = 256
"""Scans whose latents are in memory at once when a model embeds all."""
OWN_SCANS = "each fold's own training scans"


@dataclass(frozen=True, slots=True)
class Embedder:
    """Gives y_sem of the study's scans, and of the alignment scans, by any of the models."""

    store: LatentStore
    scan_ids: list[str]
    volumes: VolumeStore | None
    alignment: AlignmentScans | None
    device: torch.device
    batch_size: int

    def scans(self, ldae: FrozenLdae) -> NDArray[np.float32]:
        """Return y_sem of the study's scans, (scan, dim)."""
        parts = []
        for start in range(0, len(self.scan_ids), LOAD_SCANS):
            ids = self.scan_ids[start : start + LOAD_SCANS]
            mean = self.store.load(ids, device=self.device).mean
            y_sem = y_sem_of(ldae, mean, batch_size=self.batch_size, volumes=self.volumes, ids=ids)
            parts.append(y_sem.cpu().numpy())
        return np.concatenate(parts)

    def alignment_scans(self, ldae: FrozenLdae) -> NDArray[np.float32] | None:
        """Return y_sem of the alignment scans, (scan, dim), or None where there are none."""
        if self.alignment is None:
            return None
        y_sem = y_sem_of(ldae, self.alignment.mean.to(self.device), batch_size=self.batch_size)
        return np.asarray(y_sem.cpu().numpy())

    @property
    def aligned_on(self) -> str:
        """Return what the summaries are aligned on, in words."""
        if self.alignment is None:
            return OWN_SCANS
        return f"{counted(len(self.alignment.mean), 'scan')} of {self.alignment.source}"

    @property
    def alignment_digest(self) -> str:
        """Return the digest of what the summaries are aligned on."""
        return OWN_SCANS if self.alignment is None else self.alignment.digest


@dataclass(frozen=True, slots=True)
class FoldCodes:
    """y_sem of every scan in the space of the reference, and how it came there."""

    y_sem: NDArray[np.float32]
    """(scan, dim), out of fold."""
    by_fold: NDArray[np.float32]
    """(scan, fold, dim): of every scan by every fold's model, in that model's own space."""
    reference: NDArray[np.float32]
    """(scan, dim), by the reference itself."""
    ldae: list[str]
    """Digest of each fold's model."""
    explained: list[float]
    """`SpaceMap.explained` of each fold."""


def embed_folds(
    embedder: Embedder, of_scan: NDArray[np.intp], models: list[Path], reference: FrozenLdae
) -> FoldCodes:
    """Embed each fold's scans by its model, and map the codes into the reference's space.

    `of_scan` is the fold of each scan, `models` the LDAE folder of each fold.
    """
    by_reference, aligned_reference = embedder.scans(reference), embedder.alignment_scans(reference)
    by_fold = np.full((len(by_reference), len(models), by_reference.shape[1]), np.nan, np.float32)
    codes = FoldCodes(np.full_like(by_reference, np.nan), by_fold, by_reference, [], [])
    for fold, path in enumerate(progress(models, total=len(models), label="embed folds")):
        ldae, held_out = load_ldae(path, device=embedder.device), of_scan == fold
        own, aligned = embedder.scans(ldae), embedder.alignment_scans(ldae)
        codes.by_fold[:, fold] = own
        trained_on = PairedCodes(own[~held_out], by_reference[~held_out])
        pairs = trained_on
        if aligned is not None and aligned_reference is not None:
            pairs = PairedCodes(aligned, aligned_reference)
        to_reference = map_between(ldae.net, reference.net, alignment=pairs, origin=trained_on)
        codes.y_sem[held_out] = to_reference(own[held_out])
        codes.ldae.append(ldae.digest)
        codes.explained.append(to_reference.explained)
    return codes
