"""What an earlier encoding left, what of it is still good, and what must not be lost."""

import logging
from pathlib import Path

from pipeline.encoding.unit_writer import Previous
from pipeline.runtime.files import writing_to
from pipeline.stores.build_units import STORE, Made, former_rows, formers, recover_swap
from pipeline.stores.builder import check_target
from pipeline.stores.latents import LatentStore
from pipeline.stores.verify import verify_store
from schemas.errors import ContractError
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


def open_previous(out: Path, *, replace: bool) -> LatentStore | None:
    """Return the latent store that is already at `out`, if there is one.

    Raises
    ------
    ContractError
        If `out` is something else, or a store that does not open and `replace` is off.
    """
    check_target(out, "latents")
    with writing_to(out):
        recover_swap(out)
    if not out.exists():
        return None
    try:
        return LatentStore(out)
    except ContractError:
        if replace:
            return None
        raise


def refuse_change(store: LatentStore | None, autoencoder_digest: str, precision: str) -> None:
    """Refuse to remake a store that another autoencoder, or another precision, made.

    Raises
    ------
    ContractError
        Saying how to make a new store.
    """
    if store is None:
        return
    old = store.attributes
    same = precision in ("auto", old.params["encode"]["precision"])
    if old.digests.get("autoencoder") != autoencoder_digest or not same:
        raise ContractError(
            f"{store.path}: made with another autoencoder or precision; choose a new --out, or add"
            " --replace to make it anew"
        )


def refuse_loss(store: LatentStore | None, new: StoreAttributes) -> None:
    """Refuse to drop scans from a store, or to change all that it holds.

    Raises
    ------
    ContractError
        Naming the first scan, and saying how to go on.
    """
    if store is None:
        return
    lost = what_is_lost(store.attributes, new)
    if lost is not None:
        raise ContractError(
            f"{store.path}: {lost}; choose a new --out, or add --replace to follow the input"
        )
    changed = _changed(store.attributes, new)
    if changed:
        log.warning(
            "%s: %d scans changed since they were encoded, first %s; encoded again",
            store.path,
            len(changed),
            changed[0],
        )


def what_is_lost(old: StoreAttributes, new: StoreAttributes) -> str | None:
    """Return in words what a store would lose were it made to follow the new plan, if anything."""
    there = set(new.scan_ids)
    gone = [scan for scan in old.scan_ids if scan not in there]
    if gone:
        return f"{len(gone)} of its {len(old.scan_ids)} scans are not in the input, first {gone[0]}"
    if old.digests.get("preprocessing") != new.digests.get("preprocessing"):
        return "its scans were preprocessed otherwise"
    changed = _changed(old, new)
    if changed and len(changed) == len(old.scan_ids):
        return (
            f"all its scans have other content in the input, first {changed[0]}"
            " (another cohort under the same ids?)"
        )
    return None


def _changed(old: StoreAttributes, new: StoreAttributes) -> list[str]:
    """Return the scans of the old plan that have another fingerprint in the new one."""
    there = dict(zip(new.scan_ids, new.fingerprints, strict=True))
    pairs = zip(old.scan_ids, old.fingerprints, strict=True)
    return [scan for scan, fingerprint in pairs if there[scan] != fingerprint]


def find_previous(
    out: Path, store: LatentStore | None, new: StoreAttributes
) -> tuple[Previous, dict[str, Made]]:
    """Return the good rows of earlier stores, and how scans were made where it is known.

    Earlier are the store at `out`, without its hurt scans, and what was finished under a plan that
    has changed since.
    """
    wanted = set(new.fingerprints)
    stores: list[Path] = []
    rows: dict[str, tuple[int, int]] = {}
    made: dict[str, Made] = {}
    if store is not None and wanted & set(store.attributes.fingerprints):
        hurt = verify_store(store.path)
        if hurt:
            log.warning("%s: %d scans are damaged; encoded again", store.path, len(hurt))
        for fingerprint, row in store.fingerprint_rows().items():
            if store.made is not None:
                made[fingerprint] = store.made[row]
            if fingerprint in wanted and store.attributes.scan_ids[row] not in hurt:
                rows[fingerprint] = (len(stores), row)
        stores.append(store.path)
    for former in formers(out):
        found = {k: v for k, v in former_rows(former).items() if k in wanted and k not in rows}
        rows |= {fingerprint: (len(stores), row) for fingerprint, (row, _) in found.items()}
        made |= {fingerprint: how for fingerprint, (_, how) in found.items() if how is not None}
        stores.append(former / STORE)
    return Previous(tuple(stores), rows), made
