"""Scan ids of each split: from a manifest, or by subjects named in scan ids."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.cohort.manifest import read_manifest
from pipeline.cohort.split import split_subjects
from pipeline.cohort.subjects import subjects_of
from schemas.manifest import SPLITS
from schemas.params import SplitParams

log = logging.getLogger(__name__)


def scans_by_split(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return the scan ids of each split, in manifest order."""
    return {split: manifest.loc[manifest["split"] == split, "scan_id"].tolist() for split in SPLITS}


def split_of_store(
    scan_ids: Sequence[str], manifest: Path | None, params: SplitParams
) -> dict[str, list[str]]:
    """Return the scan ids of each split for a store.

    Without a manifest, subjects are read from the scan ids (`subjects_of`) and split by a hash.
    """
    if manifest is not None:
        return scans_by_split(read_manifest(manifest))
    subject_of = dict(zip(scan_ids, subjects_of(scan_ids), strict=True))
    if not any(scan_id.startswith("sub-") for scan_id in scan_ids):
        log.warning("scan ids name no subject (sub-…): each counts as one; give --manifest")
    splits = split_subjects(dict.fromkeys(subject_of.values(), ""), params)
    return {
        name: [scan_id for scan_id in scan_ids if splits[subject_of[scan_id]] == name]
        for name in SPLITS
    }
