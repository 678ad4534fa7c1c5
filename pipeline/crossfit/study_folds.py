"""Which scans of a study are in which fold, and what a fold's model is trained on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cohort.folds import fold_subjects, splits_without
from pipeline.runtime.progress import counted
from pipeline.stores.latents import LatentStore
from schemas.errors import ContractError, ParamsError
from schemas.params import Params


@dataclass(frozen=True, slots=True)
class Folds:
    """Which scans are in which fold."""

    table: pd.DataFrame
    """Manifest rows of the scans that take part."""
    fold_of: dict[str, int]
    """Subject to fold."""
    strata: dict[str, str]
    """Subject to diagnosis, or ""."""
    seed: int

    @property
    def scan_ids(self) -> list[str]:
        """Return the scans, in the order of the manifest."""
        return [str(scan) for scan in self.table["scan_id"]]

    @property
    def of_scan(self) -> NDArray[np.intp]:
        """Return the fold of each scan."""
        subjects = self.table["subject_id"].astype(str)
        return np.array([self.fold_of[subject] for subject in subjects], dtype=np.intp)

    def split_without(self, fold: int) -> dict[str, list[str]]:
        """Return scans of train and val for the model that must not see a fold; test is empty."""
        splits = splits_without(fold, self.fold_of, self.strata, seed=self.seed)
        of_scan = self.table["subject_id"].astype(str).map(splits)
        chosen = {name: self.table["scan_id"][of_scan == name] for name in ("train", "val")}
        return {name: [str(scan) for scan in scans] for name, scans in chosen.items()} | {
            "test": []
        }


def make_folds(manifest: pd.DataFrame, store: LatentStore, params: Params) -> Folds:
    """Return folds of the manifest's scans that have a latent; their split plays no part.

    Raises
    ------
    ContractError
        If there is no such scan.
    ParamsError
        If there are fewer subjects than folds.
    """
    table = manifest[manifest["scan_id"].isin(store.row_of)].reset_index(drop=True)
    if table.empty:
        raise ContractError(f"{store.path}: holds no scan of the manifest; run `pipeline encode`")
    first = table.groupby("subject_id")["diagnosis"].first().fillna("").astype(str)
    strata = {str(name): str(value) for name, value in first.items()}
    folds, seed = params.crossfit.folds, params.cohort.split.seed
    if len(strata) < folds:
        raise ParamsError(
            f"crossfit.folds: {folds} folds of {counted(len(strata), 'subject')} with latents in"
            f" {store.path}; set at most {len(strata)}, or 0 to leave cross-fitting out"
        )
    return Folds(table, fold_subjects(strata, folds, seed=seed), strata, seed)
