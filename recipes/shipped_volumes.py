"""The volume store and manifest that weights of the package are trained on."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.runtime.digests import digest_of
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeRow, VolumeStore, write_volumes
from recipes.free_people import UNKNOWN
from schemas.stores import StoreAttributes


def with_digests(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table of scans as a manifest; `name` is the recipe's in the digests."""
    made = table.assign(
        path="data/volumes.zarr",
        source_digest=[digest_of([name, scan_id]) for scan_id in table["scan_id"]],
    )
    return made.reindex(columns=[*made.columns, *UNKNOWN])


def write_shipped(
    out: Path, recipe: str, table: pd.DataFrame, volumes: VolumeStore, rows: Iterator[VolumeRow]
) -> None:
    """Write manifest.csv and volumes.zarr, preprocessed as `volumes` were, a row a scan."""
    table.to_csv(out / "manifest.csv", index=False)
    attributes = StoreAttributes(
        kind="volumes",
        made_by=f"recipes/{recipe}",
        params=volumes.attributes.params,
        digests=volumes.attributes.digests,
        grid=volumes.attributes.grid,
        scan_ids=list(table["scan_id"]),
        fingerprints=list(table["source_digest"]),
    )
    write_volumes(out / "volumes.zarr", attributes, progress(rows, total=len(table), label="rows"))
