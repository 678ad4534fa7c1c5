"""What was made of what: stores of two studies may hold the same scan ids."""

from collections.abc import Callable, Sequence

from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError


def latent_fingerprint(volume: str, *, autoencoder: str, precision: str) -> str:
    """Return the fingerprint of the latent of a volume with this fingerprint."""
    return digest_of({"autoencoder": autoencoder, "precision": precision, "volume": volume})


def semantic_fingerprint(latent: str, *, ldae: str) -> str:
    """Return the fingerprint of y_sem of a latent with this fingerprint."""
    return digest_of([ldae, latent])


def check_same_scans(
    latents: OpenStore, volumes: VolumeStore, scan_ids: Sequence[str] | None = None
) -> None:
    """Refuse volumes that these latents were not encoded from; scans of one store alone may be.

    Raises
    ------
    ContractError
        Naming a scan.
    """
    made = latents.attributes
    known = {
        "autoencoder": made.digests["autoencoder"],
        "precision": made.params["encode"]["precision"],
    }
    others, both = _of_others(
        latents, volumes, scan_ids, lambda volume: latent_fingerprint(volume, **known)
    )
    if others:
        raise ContractError(
            f"{volumes.path}: {others[0]} is not the volume that its latent in {latents.path} was"
            f" encoded from ({len(others)} of {both} scans); give the study's own volumes, or"
            " run `pipeline encode` again"
        )


def check_same_latents(
    semantics: OpenStore, latents: LatentStore, scan_ids: Sequence[str] | None = None
) -> None:
    """Refuse latents that these y_sem were not made of; scans of one store alone may be.

    Raises
    ------
    ContractError
        Naming a scan.
    """
    ldae = semantics.attributes.digests.get("ldae", "")
    others, both = _of_others(
        semantics, latents, scan_ids, lambda latent: semantic_fingerprint(latent, ldae=ldae)
    )
    if others:
        raise ContractError(
            f"{latents.path}: the latent of {others[0]} is not the one that {semantics.path} was"
            f" made of ({len(others)} of {both} scans); run `pipeline embed` on these latents"
        )


def _of_others(
    made: OpenStore,
    sources: OpenStore,
    scan_ids: Sequence[str] | None,
    fingerprint: Callable[[str], str],
) -> tuple[list[str], int]:
    """Return the scans of both stores that were made of something else, and how many both hold."""
    names = scan_ids or made.attributes.scan_ids
    both = [name for name in names if name in made.row_of and name in sources.row_of]
    others = [
        name
        for name in both
        if made.attributes.fingerprints[made.row_of[name]]
        != fingerprint(sources.attributes.fingerprints[sources.row_of[name]])
    ]
    return others, len(both)
