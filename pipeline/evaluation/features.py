"""Feature sets that probes are run on: y_sem and what it must beat."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pipeline.stores.latents import LatentStore
from pipeline.stores.reading import OpenStore
from schemas.errors import ContractError

MAX_COMPONENTS = 50


def fit_pca(flat: NDArray[np.floating]) -> PCA:
    """Fit at most MAX_COMPONENTS components to rows of training scans (scan, dim)."""
    return PCA(min(MAX_COMPONENTS, len(flat) - 1), svd_solver="full").fit(flat)


def collect_features(
    semantics: Path, latents: LatentStore | None, manifest: pd.DataFrame
) -> tuple[dict[str, NDArray[np.floating]], pd.DataFrame]:
    """Return feature sets (scan, dim) and the manifest rows that they belong to.

    `pca_latents` is fitted on the training split alone.

    Raises
    ------
    ContractError
        If the semantics store holds none of the manifest's scans.
    """
    store = OpenStore(semantics, kind="semantics")
    table = manifest[manifest["scan_id"].isin(store.row_of)].reset_index(drop=True)
    if table.empty:
        raise ContractError(f"{semantics}: holds no scan of the manifest; run `pipeline embed`")
    rows = [store.row_of[s] for s in table["scan_id"]]
    features: dict[str, NDArray[np.floating]] = {"y_sem": store.read("y_sem")[rows]}
    if latents is not None:
        mean = latents.load(list(table["scan_id"])).mean.float().numpy()
        flat = mean.reshape(len(mean), -1)
        fit = (table["split"] == "train").to_numpy()
        if fit.sum() > 1:
            features["pca_latents"] = fit_pca(flat[fit]).transform(flat)
        features["mean_latents"] = mean.mean(axis=(2, 3, 4))
    return features, table
