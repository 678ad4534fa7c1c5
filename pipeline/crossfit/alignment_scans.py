"""Scans of nobody in the study, on which the summaries of all models are brought together."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.stores.latents import LatentStore, open_latents
from schemas.errors import ContractError
from schemas.grid import times

FEWEST = 2


@dataclass(frozen=True, slots=True)
class AlignmentScans:
    """Latents of scans that every model embeds, whichever way they were made."""

    mean: Float[Tensor, "N C X Y Z"]
    """Posterior means by the study's autoencoder, on its grid."""
    digest: str
    """Of their content."""
    source: str
    """Where they come from, in words."""


def load_alignment(path: Path, latents: LatentStore) -> AlignmentScans:
    """Return alignment scans (phantoms, or other people) from a latent store.

    Raises
    ------
    ContractError
        If they were encoded by another autoencoder or on another grid than the study's latents,
        hold scans of the study, or are fewer than two.
    """
    store = open_latents(path)
    if store.attributes.digests["autoencoder"] != latents.attributes.digests["autoencoder"]:
        raise ContractError(
            f"{path}: encoded by another autoencoder than {latents.path}; encode the alignment"
            " scans with the study's (`pipeline encode --ae models/ae`)"
        )
    if store.latent_shape != latents.latent_shape:
        raise ContractError(
            f"{path}: latents of {store.latent_shape}, those of {latents.path} are"
            f" {latents.latent_shape}; preprocess the alignment scans to"
            f" {times(latents.attributes.grid.shape)} voxels and encode them"
        )
    known = set(latents.attributes.fingerprints)
    shared = [
        scan
        for scan, fingerprint in zip(
            store.attributes.scan_ids, store.attributes.fingerprints, strict=True
        )
        if fingerprint in known
    ]
    if shared:
        raise ContractError(
            f"{path}: {len(shared)} scans are of the study itself, first {shared[0]}; give scans of"
            " others, such as phantoms, or leave out --alignment"
        )
    if len(store) < FEWEST:
        raise ContractError(
            f"{path}: {len(store)} scan, expected at least {FEWEST} to align spaces on; give more,"
            " or leave out --alignment"
        )
    mean = store.load(store.attributes.scan_ids).mean.to(torch.float32)
    return AlignmentScans(mean, store.digest, str(path))
