"""Read any kind of input into scan records and quarantine rows."""

import logging
from collections.abc import Collection
from pathlib import Path

from pipeline.labels.scan_records import ScanRecord, tidy_path
from pipeline.sources.bids_choice import read_choice
from pipeline.sources.bids_source import bids_records
from pipeline.sources.dicom_source import dicom_records
from pipeline.sources.folder_source import folder_records
from pipeline.sources.same_name_images import drop_other_formats
from pipeline.sources.table_source import table_records
from schemas.errors import ParamsError
from schemas.manifest import SELECTION, QuarantineRow
from schemas.params import CohortParams

log = logging.getLogger(__name__)


def read_source(
    params: CohortParams,
    source: Path,
    columns: dict[str, str],
    cache: Path | None,
    *,
    contrast: str,
    listed: Collection[str],
    dry_run: bool,
    subjects: Collection[str] | None = None,
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return the scan records of an input, and quarantine rows of images not taken.

    Parameters
    ----------
    cache
        Folder for converted DICOM series.
    contrast
        That of the cohort; a BIDS dataset is chosen from by suffix, a table by its own column.
    listed
        Subjects of participants.tsv.
    subjects
        The only subjects of a BIDS dataset to look at; None for all.

    Raises
    ------
    ParamsError
        If the kind of source is unknown, or DICOM has no folder for converted images.
    """
    if params.source != "bids" and params.bids_filter:
        log.warning("cohort.bids_filter plays no part where cohort.source is %s", params.source)
    if params.source == "bids":
        choice = read_choice(params.suffix, params.prefer, params.bids_filter)
        records, rows = bids_records(source, listed, choice, subjects)
    elif params.source == "folder":
        records, rows = _one_format_each(*folder_records(source, contrast))
    elif params.source == "table":
        records, rows = table_records(source, columns), []
    elif params.source == "dicom":
        if contrast == "other":
            raise ParamsError(
                f"cohort.suffix {', '.join(params.suffix)}: of DICOM series T1w, T2w, FLAIR, PDw"
                " and T2starw can be told; convert them, and give a table"
            )
        if cache is None and not dry_run:
            raise ParamsError("cohort.source dicom: expected a folder for converted images")
        records, rows = dicom_records(source, None if dry_run else cache, params.prefer, contrast)
    else:
        raise ParamsError(f"cohort.source {params.source}: expected bids, folder, table or dicom")
    for record in records:
        record.path = tidy_path(record.path) if record.path != Path() else record.path
    return records, rows


def _one_format_each(
    records: list[ScanRecord], rows: list[QuarantineRow]
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return the records with one format of each image, and rows of the other formats."""
    kept, left = drop_other_formats([record.path for record in records])
    names = {record.path: record.scan_id for record in records}
    rows += [
        {"scan_id": names[path], "path": str(path), "stage": SELECTION, "reason": why}
        for path, why in left
    ]
    return [record for record in records if record.path in set(kept)], rows
