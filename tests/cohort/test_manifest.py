"""The manifest: written, read, and its faults named by row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.manifest import read_manifest, write_manifest
from schemas.errors import ContractError
from tests.support.source_folders import build


def test_manifest_round_trip_and_relative_paths(bids: Path, tmp_path: Path) -> None:
    manifest, _ = build(bids)
    write_manifest(manifest, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    assert list(again["scan_id"]) == list(manifest["scan_id"])
    assert all(path.startswith("bids/") for path in again["path"])
    assert again["site"].iloc[0] == "007"
    assert again["session_id"].iloc[2] == ""
    np.testing.assert_array_equal(again["age_years"], manifest["age_years"])
    write_manifest(manifest, tmp_path / "elsewhere" / "manifest.csv")
    moved = read_manifest(tmp_path / "elsewhere" / "manifest.csv")
    assert all(Path(path).is_absolute() for path in moved["path"])


def _spoil(manifest: pd.DataFrame, name: str) -> pd.DataFrame:
    spoilt = manifest.copy()
    if name == "duplicate":
        spoilt.loc[1, "scan_id"] = spoilt.loc[0, "scan_id"]
    elif name == "two splits":
        spoilt.loc[0, "split"] = "test" if spoilt.loc[1, "split"] == "train" else "train"
    elif name == "unknown split":
        spoilt.loc[1, "split"] = "dev"
    elif name == "no path":
        spoilt.loc[1, "path"] = ""
    elif name == "column":
        spoilt = spoilt.drop(columns="sex")
    elif name == "age":
        spoilt["age_years"] = spoilt["age_years"].astype(object)
        spoilt.loc[1, "age_years"] = "old"
    return spoilt


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("duplicate", "not unique: .*row 2.*row 3"),
        ("two splits", "two splits: .*row 2"),
        ("unknown split", "'dev'.*row 3"),
        ("no path", "path is empty for .*row 3"),
        ("column", "columns sex"),
        ("age", "'old'.*row 3"),
    ],
)
def test_manifest_faults_name_the_rows(
    bids: Path, tmp_path: Path, name: str, expected: str
) -> None:
    manifest, _ = build(bids)
    path = tmp_path / "manifest.csv"
    _spoil(manifest, name).to_csv(path, index=False)
    with pytest.raises(ContractError, match=expected):
        read_manifest(path)
