"""Folders of files that look like scans, and the cohort made of them."""

from pathlib import Path

import pandas as pd

from pipeline.cohort.ingest import build_manifest
from schemas.manifest import SELECTION
from schemas.params import CohortParams


def touch(root: Path, *names: str) -> None:
    """Make files with distinct content; ingest never looks inside."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def build(root: Path, source: str = "bids", **kwargs: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    params = CohortParams.model_validate({"source": source, **kwargs})
    return build_manifest(params, input_path=root)


def faulty(refused: pd.DataFrame) -> pd.DataFrame:
    """The rows of faults: without images that are left out on purpose."""
    return refused[refused["stage"] != SELECTION]


def table_of(folder: Path, text: str) -> Path:
    touch(folder, "1.nii", "2.nii")
    (folder / "people.csv").write_text(text)
    return folder / "people.csv"
