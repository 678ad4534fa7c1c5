"""Which scans train, validate and test: from a manifest, or anew from subject names."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.cohort.manifest import read_manifest
from pipeline.cohort.split import split_subjects
from schemas.manifest import SPLITS
from schemas.params import SplitParams


def scans_by_split(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return the scan ids of each split, in manifest order."""
    return {split: manifest.loc[manifest["split"] == split, "scan_id"].tolist() for split in SPLITS}


def split_of_store(
    scan_ids: Sequence[str], manifest: Path | None, params: SplitParams
) -> dict[str, list[str]]:
    """Return the scan ids of each split for a store.

    Without a manifest, subjects are the part of the scan id before `_ses-`, `_acq-` or `_run-`,
    and are split by their names alone.
    """
    if manifest is not None:
        return scans_by_split(read_manifest(manifest))
    subject_of = {scan_id: scan_id.split("_")[0] for scan_id in scan_ids}
    splits = split_subjects(dict.fromkeys(subject_of.values(), ""), params)
    return {
        name: [scan_id for scan_id in scan_ids if splits[subject_of[scan_id]] == name]
        for name in SPLITS
    }
