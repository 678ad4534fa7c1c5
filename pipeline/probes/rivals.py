"""Rivals of y_sem from a table: other people's embeddings, FreeSurfer's volumes."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Features = dict[str, NDArray[np.floating]]


def read_rivals(
    rivals: Mapping[str, Path], table: pd.DataFrame, taken: Collection[str]
) -> tuple[Features, dict[str, str]]:
    """Return features (scan, column) of each rival, aligned with the table, and lines about them.

    A rival is a CSV with `scan_id` and columns of numbers; others are left aside. A scan without a
    whole row is NaN. A rival that cannot be used is left out with a line; nothing is raised.

    Parameters
    ----------
    rivals
        Name to the CSV.
    table
        Manifest rows: scan_id.
    taken
        Names of feature sets that a rival must not have.
    """
    features: Features = {}
    lines: dict[str, str] = {}
    for name, path in rivals.items():
        if name in taken:
            lines[name] = f"rival {name}: left out, the pipeline has features of that name"
            continue
        values, remark = _read(path, table)
        if values is not None:
            features[name] = values
        if remark:
            lines[name] = f"rival {name} ({path}): {remark}"
    return features, lines


def _read(path: Path, table: pd.DataFrame) -> tuple[NDArray[np.float64] | None, str]:
    try:
        rows = pd.read_csv(path, dtype={"scan_id": str})
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        return None, f"left out, no readable CSV ({reason})"
    if "scan_id" not in rows:
        return None, "left out, it has no column scan_id"
    remarks = []
    unknown = rows.loc[~rows["scan_id"].isin(table["scan_id"]), "scan_id"]
    if len(unknown):
        remarks.append(
            f"{len(unknown)} row(s) are of no scan that is judged, first {unknown.iloc[0]}"
        )
    rows = rows[rows["scan_id"].isin(table["scan_id"])].drop_duplicates()
    twice = rows.loc[rows["scan_id"].duplicated(), "scan_id"]
    if len(twice):
        return None, f"left out, {twice.iloc[0]} has rows that differ; keep one row a scan"
    values = rows.set_index("scan_id").select_dtypes("number").reindex(table["scan_id"])
    values = values.replace([np.inf, -np.inf], np.nan)
    if not values.shape[1]:
        return None, "left out, it has no column of numbers"
    incomplete = values.isna().any(axis=1)
    if incomplete.all():
        return None, "left out, it has a whole row of no scan that is judged"
    if incomplete.any():
        first = str(table["scan_id"].to_numpy()[incomplete.to_numpy()][0])
        remarks.append(
            f"{int(incomplete.sum())} of {len(table)} scans have no or no whole row, first {first};"
            " it is read, and compared with y_sem, on the others alone"
        )
        values[incomplete] = np.nan
    return values.to_numpy(dtype=np.float64), "; ".join(remarks)
