"""What was made of what: stores of two studies may hold the same scan ids."""

from collections.abc import Sequence

from pipeline.compute import digest_of
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError


def latent_fingerprint(volume: str, *, autoencoder: str, precision: str) -> str:
    """Return the fingerprint of the latent of a volume with this fingerprint."""
    return digest_of({"autoencoder": autoencoder, "precision": precision, "volume": volume})


def semantic_fingerprint(latent: str, *, ldae: str) -> str:
    """Return the fingerprint of y_sem of a latent with this fingerprint."""
    return digest_of([ldae, latent])


def check_same_scans(
    latents: LatentStore, volumes: VolumeStore, scan_ids: Sequence[str] | None = None
) -> None:
    """Refuse volumes that these latents were not encoded from; scans of one store alone may be.

    Raises
    ------
    ContractError
        Naming a scan.
    """
    made, there = latents.attributes, volumes.attributes
    known = {
        "autoencoder": made.digests["autoencoder"],
        "precision": made.params["encode"]["precision"],
    }
    names = scan_ids or made.scan_ids
    both = [name for name in names if name in latents.row_of and name in volumes.row_of]
    others = [
        name
        for name in both
        if made.fingerprints[latents.row_of[name]]
        != latent_fingerprint(there.fingerprints[volumes.row_of[name]], **known)
    ]
    if others:
        raise ContractError(
            f"{volumes.path}: {others[0]} is not the volume that its latent in {latents.path} was"
            f" encoded from ({len(others)} of {len(both)} scans); give the study's own volumes, or"
            " run `pipeline encode` again"
        )
