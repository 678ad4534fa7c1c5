"""The latent store of an earlier run: rows to reuse, and changes that are refused."""

import logging
from dataclasses import dataclass
from pathlib import Path

from pipeline.encoding.latent_plan import ReusableRows
from pipeline.runtime.files import writing_to
from pipeline.stores.build_units import (
    STORE,
    EncodeSettings,
    former_folders,
    former_rows,
    recover_swap,
)
from pipeline.stores.builder import check_target
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import is_current
from pipeline.stores.verify import missing_chunks, verify_store
from schemas.errors import ContractError
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviousLatents:
    """Latents of an earlier run at a path: a complete store, units of an unfinished one."""

    path: Path
    store: LatentStore | None

    def precision_for(self, asked: str, autoencoder_digest: str) -> str | None:
        """Return the precision asked for, or that of the store; None if the device decides."""
        if asked != "auto":
            return asked
        if self.store is None or self._autoencoder_digest != autoencoder_digest:
            return None
        return self._precision

    @property
    def _precision(self) -> str:
        assert self.store is not None
        return str(self.store.attributes.params["encode"]["precision"])

    @property
    def _autoencoder_digest(self) -> str | None:
        assert self.store is not None
        return self.store.attributes.digests.get("autoencoder")

    def refuse_change(self, precision: str, autoencoder_digest: str) -> None:
        """Refuse to replace a store of another autoencoder or precision.

        Raises
        ------
        ContractError
            With the way to make a new store.
        """
        if self.store is None:
            return
        same = precision in ("auto", self._precision)
        if self._autoencoder_digest != autoencoder_digest or not same:
            raise ContractError(
                f"{self.path}: made with another autoencoder or precision; choose a new --out, or"
                " add --replace to make it anew"
            )

    def is_current(self, attributes: StoreAttributes, *, thorough: bool) -> bool:
        """Return whether the store is complete and has these attributes and every chunk file.

        With `thorough` every chunk is read and compared with its digest.
        """
        if self.store is None or not is_current(self.path, attributes):
            return False
        return not any(missing_chunks(self.store)) and not (thorough and verify_store(self.path))

    def refuse_loss(self, attributes: StoreAttributes) -> None:
        """Refuse to drop scans from the store, or to change all its content.

        Raises
        ------
        ContractError
            Naming the first scan and the remedy.
        """
        if self.store is None:
            return
        lost = describe_loss(self.store.attributes, attributes)
        if lost is not None:
            raise ContractError(
                f"{self.path}: {lost}; choose a new --out, or add --replace to follow the input"
            )
        changed = _changed(self.store.attributes, attributes)
        if changed:
            log.warning(
                "%s: %d scans changed since they were encoded, first %s; encoded again",
                self.path,
                len(changed),
                changed[0],
            )

    def reusable_rows(
        self, attributes: StoreAttributes
    ) -> tuple[ReusableRows, dict[str, EncodeSettings]]:
        """Return the undamaged rows of earlier stores, and the recorded settings of their scans.

        Earlier stores are the complete one and the finished units of a former plan.
        """
        wanted = set(attributes.fingerprints)
        stores: list[Path] = []
        rows: dict[str, tuple[int, int]] = {}
        settings: dict[str, EncodeSettings] = {}
        if self.store is not None and wanted & set(self.store.attributes.fingerprints):
            damaged = verify_store(self.path)
            if damaged:
                log.warning("%s: %d scans are damaged; encoded again", self.path, len(damaged))
            for fingerprint, row in self.store.fingerprint_rows().items():
                if self.store.encode_settings is not None:
                    settings[fingerprint] = self.store.encode_settings[row]
                if fingerprint in wanted and self.store.attributes.scan_ids[row] not in damaged:
                    rows[fingerprint] = (len(stores), row)
            stores.append(self.path)
        for former in former_folders(self.path):
            new = {k: v for k, v in former_rows(former).items() if k in wanted and k not in rows}
            rows |= {fingerprint: (len(stores), row) for fingerprint, (row, _) in new.items()}
            settings |= {fingerprint: how for fingerprint, (_, how) in new.items() if how}
            stores.append(former / STORE)
        return ReusableRows(stores=tuple(stores), rows=rows), settings


def open_previous(
    latents: Path, *, autoencoder_digest: str, precision: str, replace: bool
) -> PreviousLatents:
    """Open the latent store that already exists at a path, if any.

    Raises
    ------
    ContractError
        If the path is something else, or, with `replace` off, a store that does not open or is of
        another autoencoder or precision.
    """
    check_target(latents, "latents")
    with writing_to(latents):
        recover_swap(latents)
    if not latents.exists():
        return PreviousLatents(latents, None)
    try:
        previous = PreviousLatents(latents, LatentStore(latents))
    except ContractError:
        if replace:
            return PreviousLatents(latents, None)
        raise
    if not replace:
        previous.refuse_change(precision, autoencoder_digest)
    return previous


def describe_loss(old: StoreAttributes, new: StoreAttributes) -> str | None:
    """Return in words what a store would lose under a new plan; None if nothing."""
    kept = set(new.scan_ids)
    gone = [scan for scan in old.scan_ids if scan not in kept]
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
    """Return the scans with another fingerprint in the new plan than in the old one."""
    new_fingerprints = dict(zip(new.scan_ids, new.fingerprints, strict=True))
    pairs = zip(old.scan_ids, old.fingerprints, strict=True)
    return [scan for scan, fingerprint in pairs if new_fingerprints[scan] != fingerprint]
