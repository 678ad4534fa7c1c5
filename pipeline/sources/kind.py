"""What kind of input a path is. Nothing heavy is imported: commands ask it before all else."""

from pathlib import Path
from typing import Literal

from pipeline.sources.dicom_files import is_dicom
from pipeline.sources.file_kinds import READ as IMAGES
from schemas.errors import ContractError

TABLES = {".csv", ".tsv", ".parquet"}


def detect_source(path: Path) -> Literal["bids", "folder", "table", "volumes", "dicom"]:
    """Return the kind of an input path, by its content.

    Raises
    ------
    ContractError
        If it does not exist or is none of these.
    """
    if not path.exists():
        raise ContractError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() in TABLES:
            return "table"
        if not path.name.lower().endswith(IMAGES):
            raise ContractError(
                f"{path}: neither an image ({', '.join(IMAGES)}) nor a table"
                f" ({', '.join(sorted(TABLES))}); give one, or a folder"
            )
        return "folder"
    if (path / "zarr.json").is_file():
        return "volumes"
    has_subjects = any(p.is_dir() for p in path.glob("sub-*"))
    marked = (path / "participants.tsv").is_file() or (path / "dataset_description.json").is_file()
    if has_subjects and (
        marked
        or any(
            next(path.glob(f"sub-*/**/anat/*_{suffix}.nii*"), None) for suffix in ("T1w", "UNIT1")
        )
    ):
        return "bids"
    from pipeline.labels.scan_records import walk  # it brings pandas

    files = [folder / name for folder, names in walk(path) for name in names]
    images = any(p.name.lower().endswith(IMAGES) for p in files)
    return "dicom" if not images and any(is_dicom(p) for p in files) else "folder"
