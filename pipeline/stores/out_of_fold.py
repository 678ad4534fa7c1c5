"""Out-of-fold y_sem: a semantics store with an array `fold`, as `pipeline crossfit` writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_json
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore, rows_in
from schemas.errors import ContractError
from schemas.results import CrossfitResult

STORE = "semantics.zarr"
SUMMARY = "crossfit.json"
"""Beside the store: how many folds there are and how well their spaces agree."""


def leave_out(out: Path) -> None:
    """Write the empty result: nothing is trained, and what would read it goes on without."""
    write_json(out / SUMMARY, CrossfitResult(folds=0).model_dump())


def fold_folder(out: Path, fold: int) -> Path:
    """Return the folder of a fold's models; folds count from 0, folders from 1."""
    return out / f"fold-{fold + 1}"


def fold_digest_name(fold: int) -> str:
    """Return the name of a fold's model among the digests of the store."""
    return f"ldae_fold_{fold + 1}"


def out_of_fold_fingerprint(latent: str, *, fold: str, reference: str, alignment: str) -> str:
    """Return the fingerprint of y_sem of a latent with this fingerprint.

    `fold` and `reference` are the digests of the model that embedded it and of the one whose space
    it was brought into; `alignment` that of what the spaces were aligned on.
    """
    return digest_of([reference, fold, alignment, latent])


@dataclass(frozen=True, slots=True)
class OutOfFoldCodes:
    """y_sem of scans, each by the model that was trained without the scan's person."""

    path: Path
    y_sem: NDArray[np.float32]
    """(scan, dim), in the space of the reference."""
    by_fold: NDArray[np.float32]
    """(scan, fold, dim): of every scan by each fold's model, in that model's own space."""
    fold: NDArray[np.intp]
    """(scan,), from 0."""
    row_of: dict[str, int]
    digests: dict[str, str]
    result: CrossfitResult
    """How the codes were made."""

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def rows_of(self, scan_ids: Sequence[str]) -> list[int]:
        """Return the rows of these scans.

        Raises
        ------
        ContractError
            If a scan is not in the store.
        """
        remedy = "run `pipeline crossfit` again, which trains on them too"
        return rows_in(self.row_of, scan_ids, path=self.path, remedy=remedy)

    def in_place_of(
        self, y_sem: NDArray[np.float32], table: pd.DataFrame, *, splits: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return codes (scan, dim) in which scans of these splits have their out-of-fold y_sem.

        `table` has scan_id and split of each scan. The other scans keep theirs, by a model that
        was not trained on them.
        """
        chosen = table["split"].isin(splits).to_numpy()
        replaced = y_sem.copy()
        replaced[chosen] = self.y_sem[self.rows_of(list(table["scan_id"][chosen]))]
        return replaced


def read_out_of_fold(
    path: Path, *, ldae: str, latents: LatentStore | None = None
) -> OutOfFoldCodes | None:
    """Return the codes, or None where cross-fitting was left out (`crossfit.folds: 0`).

    Parameters
    ----------
    path
        semantics.zarr of `pipeline crossfit`.
    ldae
        Digest of the LDAE in whose space the codes are wanted.
    latents
        Where given, the latents that they must have been computed from.

    Raises
    ------
    ContractError
        If the store is none of `pipeline crossfit`, of another LDAE, or of other latents.
    """
    result = _read_result(path.parent / SUMMARY)
    if result is not None and result.folds == 0:
        return None
    store = OpenStore(path, kind="semantics")
    if "fold" not in store.group or "y_sem_by_fold" not in store.group:
        raise ContractError(
            f"{path}: has no codes by fold, expected the store of `pipeline crossfit` of this"
            " version; that of `pipeline embed` goes to --semantics"
        )
    digests = store.attributes.digests
    if digests["ldae"] != ldae:
        raise ContractError(
            f"{path}: brought into the space of another LDAE ({digests['ldae'][:12]}) than"
            f" --semantics is of ({ldae[:12]}); run `pipeline crossfit` with this one"
        )
    fold = np.asarray(store.read("fold"), dtype=np.intp)
    if latents is not None:
        _check_latents(store, fold, latents)
    if result is None:
        raise ContractError(
            f"{path.parent / SUMMARY}: missing or damaged; run `pipeline crossfit`, which keeps the"
            " models that it finds"
        )
    y_sem, by_fold = store.read("y_sem"), store.read("y_sem_by_fold")
    return OutOfFoldCodes(path, y_sem, by_fold, fold, store.row_of, dict(digests), result)


def _read_result(file: Path) -> CrossfitResult | None:
    try:
        return CrossfitResult.model_validate_json(file.read_text())
    except (OSError, ValueError):
        return None


def _check_latents(store: OpenStore, fold: NDArray[np.intp], latents: LatentStore) -> None:
    digests, made = store.attributes.digests, store.attributes.fingerprints
    for scan, row in store.row_of.items():
        if scan not in latents.row_of:
            continue
        expected = out_of_fold_fingerprint(
            latents.attributes.fingerprints[latents.row_of[scan]],
            fold=digests[fold_digest_name(int(fold[row]))],
            reference=digests["ldae"],
            alignment=digests["alignment"],
        )
        if made[row] != expected:
            raise ContractError(
                f"{latents.path}: the latent of {scan} is not the one that {store.path} was made"
                " of; run `pipeline crossfit` on these latents"
            )
