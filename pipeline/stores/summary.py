"""Statistics of a store: mean and spread of latents per channel, scans per split."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore

MAX_CHUNKS = 64
"""Statistics use at most so many chunks, evenly spread; more would not change the digits shown."""


def latent_statistics(store: LatentStore) -> tuple[int, list[dict[str, float]]]:
    """Return the number of scans used, and `mean`, `std` and `sigma` of each channel.

    `mean` and `std` are those of the posterior means over scans and voxels, `sigma` the root of the
    mean posterior variance.

    Raises
    ------
    ContractError
        If a chunk is damaged or missing.
    """
    rows = store.chunk_scans
    chunks = -(-len(store) // rows)
    chosen = np.unique(np.linspace(0, chunks - 1, min(chunks, MAX_CHUNKS)).astype(int)).tolist()
    count, sums = 0, np.zeros((3, store.latent_shape[0]))
    for chunk in chosen:
        scans = slice(chunk * rows, min((chunk + 1) * rows, len(store)))
        mean = store.read_finite("posterior_mean", scans).astype(np.float64)
        variance = np.exp(store.read_finite("posterior_logvar", scans).astype(np.float64))
        count += len(mean)
        axes = (0, 2, 3, 4)
        sums += [mean.sum(axes), np.square(mean).sum(axes), variance.sum(axes)]
    first, second, variance = sums / (count * np.prod(store.latent_shape[1:]))
    spread, sigma = np.sqrt(np.maximum(second - first**2, 0)), np.sqrt(variance)
    return count, [
        {"mean": float(m), "std": float(s), "sigma": float(v)}
        for m, s, v in zip(first, spread, sigma, strict=True)
    ]


def find_manifest(store: Path) -> Path | None:
    """Return the manifest that `encode` or `cohort` wrote for a store, or None."""
    places = (
        store.with_name(store.name.removesuffix(".zarr") + ".input"),
        store.parent / "cohort",
        store.parent,
    )
    return next((p / "manifest.csv" for p in places if (p / "manifest.csv").is_file()), None)


def split_counts(store: OpenStore, manifest: pd.DataFrame) -> dict[str, int]:
    """Return the number of the store's scans in each split; `none` counts those without a row."""
    split_of = dict(zip(manifest["scan_id"], manifest["split"], strict=True))
    splits = pd.Series([split_of.get(s, "none") for s in store.attributes.scan_ids])
    return {str(k): int(v) for k, v in splits.value_counts().items()}
