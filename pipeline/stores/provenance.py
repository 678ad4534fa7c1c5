"""Check that stores belong together: stores of two studies may hold the same scan ids."""

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
    """Refuse volumes that these latents were not encoded from.

    Scans that only one of the stores holds are not compared.

    Raises
    ------
    ContractError
        Naming both grids, where they differ, or a scan.
    """
    attributes = latents.attributes
    if volumes.attributes.grid != attributes.grid:
        raise ContractError(
            f"{volumes.path}: volumes of {volumes.attributes.grid}, the latents in {latents.path}"
            f" were encoded from {attributes.grid}; give the study's own volumes, or run"
            " `pipeline encode` again"
        )
    encoded_by = {
        "autoencoder": attributes.digests["autoencoder"],
        "precision": attributes.params["encode"]["precision"],
    }
    others, shared = _mismatched_scans(
        latents, volumes, scan_ids, lambda volume: latent_fingerprint(volume, **encoded_by)
    )
    if others:
        raise ContractError(
            f"{volumes.path}: {others[0]} is not the volume that its latent in {latents.path} was"
            f" encoded from ({len(others)} of {shared} scans); give the study's own volumes, or"
            " run `pipeline encode` again"
        )


def check_same_latents(
    semantics: OpenStore, latents: LatentStore, scan_ids: Sequence[str] | None = None
) -> None:
    """Refuse latents that these y_sem were not computed from.

    Scans that only one of the stores holds are not compared.

    Raises
    ------
    ContractError
        Naming a scan, or the store if its codes are out-of-fold ones.
    """
    if "fold" in semantics.group:
        raise ContractError(
            f"{semantics.path}: out-of-fold codes of `pipeline crossfit`, expected the store of"
            " `pipeline embed`; give that with --semantics and this one with --crossfit"
        )
    ldae = semantics.attributes.digests.get("ldae", "")
    others, shared = _mismatched_scans(
        semantics, latents, scan_ids, lambda latent: semantic_fingerprint(latent, ldae=ldae)
    )
    if others:
        raise ContractError(
            f"{latents.path}: the latent of {others[0]} is not the one that {semantics.path} was"
            f" made of ({len(others)} of {shared} scans); run `pipeline embed` on these latents"
        )


def _mismatched_scans(
    derived: OpenStore,
    sources: OpenStore,
    scan_ids: Sequence[str] | None,
    fingerprint: Callable[[str], str],
) -> tuple[list[str], int]:
    """Return the shared scans that were derived from other content, and the number of shared ones.

    `fingerprint` gives the fingerprint that a scan of `derived` has, from that of its source.
    """
    names = scan_ids or derived.attributes.scan_ids
    shared = [name for name in names if name in derived.row_of and name in sources.row_of]
    others = [
        name
        for name in shared
        if derived.attributes.fingerprints[derived.row_of[name]]
        != fingerprint(sources.attributes.fingerprints[sources.row_of[name]])
    ]
    return others, len(shared)
