"""Folders of files that look like scans, and the cohort made of them."""

from pathlib import Path

import pandas as pd

from pipeline.cohort.ingest import build_manifest
from pipeline.labels.people_tables import PARTICIPANTS
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


def bids_of(root: Path, *names: str, people: str | None = None) -> Path:
    """Make `sub-1_ses-a` T1w files, and participants.tsv from comma-separated text."""
    for name in names:
        folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        touch(root, "/".join([*folders, "anat", f"{name}_T1w.nii.gz"]))
    if people is not None:
        (root / PARTICIPANTS).write_text(people.replace(",", "\t"))
    return root


def manifest_of_table(root: Path, text: str, name: str = "t.csv", **kwargs: object) -> pd.DataFrame:
    """Return the manifest of a table and of the scans that it names."""
    for line in text.strip().splitlines()[1:]:
        touch(root, next(c for c in line.replace(";", ",").split(",") if c.endswith(".nii")))
    (root / name).write_text(text)
    return build(root / name, "table", **kwargs)[0].set_index("scan_id")
