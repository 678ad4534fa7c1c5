"""Read any cohort: a manifest with one row a usable file, a quarantine list of the rest."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from pipeline.cohort.bundled_people import is_seen
from pipeline.cohort.candidates import Cohort, candidate_table
from pipeline.cohort.contrast import of_contrast, study_contrast
from pipeline.cohort.manifest import typed
from pipeline.cohort.split import missing_classes, split_subjects, split_unseen, splits_given
from pipeline.labels.columns import ALIASES, DEFAULT_NAMES, IDENTITY, label_table, shown_path
from pipeline.labels.people_tables import (
    PARTICIPANTS,
    folder_names,
    label_records,
    read_participants,
    rows_by_folder,
)
from pipeline.labels.personal_columns import leave_out_personal
from pipeline.labels.scan_records import ScanRecord, tidy_path
from pipeline.runtime.devices import available_cpus
from pipeline.runtime.digests import digest_image
from pipeline.runtime.progress import progress
from pipeline.sources.read_source import read_source
from schemas.errors import ContractError, ParamsError
from schemas.manifest import (
    CONTRAST_COLUMN,
    MANIFEST_COLUMNS,
    QUARANTINE_COLUMNS,
    SELECTION,
    QuarantineRow,
)
from schemas.params import CohortParams

log = logging.getLogger(__name__)

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
MAX_ID = 128
"""Longest scan id; file systems end names at 255 letters, and suffixes and hashes are added."""


def build_manifest(
    params: CohortParams,
    *,
    input_path: Path | None = None,
    cache: Path | None = None,
    dry_run: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the manifest and the quarantine list of `build_cohort`."""
    cohort = build_cohort(params, input_path=input_path, cache=cache, dry_run=dry_run)
    return cohort.manifest, cohort.refused


def build_cohort(
    params: CohortParams,
    *,
    input_path: Path | None = None,
    cache: Path | None = None,
    dry_run: bool = False,
    judged: bool = True,
    subjects: Collection[str] | None = None,
) -> Cohort:
    """Return the manifest (schemas.manifest, paths absolute), the quarantine list and candidates.

    Label columns that are not in the contract are kept under their own names. Missing and empty
    files and duplicate scan ids go to the quarantine list with a reason. Rows are in order of
    scan_id. The source data are never changed.

    Parameters
    ----------
    cache
        Folder for converted DICOM series.
    dry_run
        Convert nothing, and compute no digests but those that tell duplicates from other files.
    judged
        Whether labels will be judged: warn of classes that a split lacks.
    subjects
        The only subjects (sub-<label>) of a BIDS dataset to look at; None for all.

    Raises
    ------
    ContractError
        If the input is missing, is malformed, or holds no usable scan.
    """
    source = input_path or params.input
    if source is None:
        raise ParamsError("cohort.input: expected a folder or a table")
    if not source.exists():
        raise ContractError(f"{source}: no such file or folder")
    columns = {ALIASES.get(key, key): value for key, value in params.columns.items()}
    _warn_of_misspelt_columns(columns)
    named = [name for name in IDENTITY if name in columns]
    if named == ["session_id"] and (source / PARTICIPANTS).is_file():
        named = []  # the column of visits in participants.tsv
    if named and params.source != "table":
        raise ParamsError(
            f"cohort.columns: {', '.join(named)} come from the files themselves where"
            f" cohort.source is {params.source}; give a table of scans, or leave them out"
        )
    records, refused = _labelled(params, source, columns, cache, dry_run=dry_run, subjects=subjects)
    records, digests, more = _sound(records, dry_run=dry_run)
    refused = [row | {"path": str(tidy_path(Path(row["path"])))} for row in refused] + more
    refused = sorted(refused, key=lambda row: row["stage"] == SELECTION)
    if not records:
        first = refused[0] if refused else None
        detail = f"; first refused: {first['path']}: {first['reason']}" if first else _hint(source)
        wanted = " or ".join(params.suffix)
        raise ContractError(f"{source}: no usable {wanted} image found{detail}")
    table = typed(label_table(records, digests, columns, source), source)
    _warn_of_copies(table, source)
    table["split"] = _splits(table, params, source)
    if study_contrast(params) != "T1w":
        table[CONTRAST_COLUMN] = study_contrast(params)
    for label in ("diagnosis", "sex") if judged else ():
        missing = missing_classes(table, label)
        if missing is not None:
            log.warning(
                "%s: %s; probes of it cannot be judged there (another cohort.split.seed, or a"
                " column `split` of yours)",
                label,
                missing,
            )
    extra = [name for name in table.columns if name not in MANIFEST_COLUMNS]
    manifest = table[[*MANIFEST_COLUMNS, *extra]]
    return Cohort(manifest, quarantine_table(refused), candidate_table(records))


def _splits(table: pd.DataFrame, params: CohortParams, source: Path) -> list[str]:
    """Return the split of every scan: the user's own, or by hash within a diagnosis."""
    if table["split"].notna().any():
        log.info("%s: its column `split` is taken as it is; cohort.split plays no part", source)
        return list(splits_given(table["split"], table["subject_id"], source))
    strata = table.groupby("subject_id")["diagnosis"].first().fillna("").astype(str).to_dict()
    labels = {str(k): str(v) for k, v in strata.items()}
    if params.split.seen == "train":
        seen = {str(name) for name in table.loc[is_seen(table), "subject_id"]}
        splits = split_unseen(labels, seen, params.split)
    else:
        splits = split_subjects(labels, params.split)
    return [splits[name] for name in table["subject_id"]]


def _warn_of_misspelt_columns(columns: Mapping[str, str]) -> None:
    """Warn of names that look like a misspelt label with a meaning; any other is a new label."""
    meant = [*DEFAULT_NAMES, *ALIASES, *IDENTITY]
    for name, column in columns.items():
        near = get_close_matches(name, meant, 1, cutoff=0.76) if name not in meant else []
        if near:
            log.warning(
                "cohort.columns: %s becomes a label called %s; was %s meant?", column, name, near[0]
            )


def quarantine_table(rows: list[QuarantineRow]) -> pd.DataFrame:
    """Return a quarantine list (schemas.manifest) from its rows."""
    return pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS))


def _labelled(
    params: CohortParams,
    source: Path,
    columns: dict[str, str],
    cache: Path | None,
    *,
    dry_run: bool,
    subjects: Collection[str] | None,
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return the source's scans with their labels, and quarantine rows of the images not taken."""
    people = read_participants(source, columns)
    if subjects is not None:
        people = rows_by_folder(people, folder_names(source))[0]
        people = {name: rows for name, rows in people.items() if name in subjects}
    contrast = study_contrast(params)
    records, refused = read_source(
        params,
        source,
        columns,
        cache,
        contrast=contrast,
        listed=people,
        dry_run=dry_run,
        subjects=subjects,
    )
    if params.source == "table":
        records, left = of_contrast(records, contrast)
        refused = refused + left
    if params.source != "table":
        label_records(source, records, people, columns)
    leave_out_personal(records, columns, params.leave_out, str(source))
    return records, refused


def _sound(
    records: list[ScanRecord], *, dry_run: bool
) -> tuple[list[ScanRecord], list[str], list[QuarantineRow]]:
    """Return the usable records with their digests, and quarantine rows of the others."""
    refused: list[QuarantineRow] = []
    readable: list[ScanRecord] = []
    for record in sorted(records, key=lambda r: (r.scan_id, str(r.path))):
        fault = _fault(record)
        if fault:
            refused.append(_row(record, fault))
        else:
            readable.append(record)
    shared = Counter(record.scan_id for record in readable)
    with ThreadPoolExecutor(max(1, min(8, available_cpus()))) as pool:
        running = pool.map(
            lambda r: ("", None) if dry_run and shared[r.scan_id] == 1 else _digest(r), readable
        )
        digests = list(progress(running, total=len(readable), label="Digests"))
    groups: dict[str, list[tuple[ScanRecord, str]]] = {}
    for record, (digest, fault) in zip(readable, digests, strict=True):
        if fault:
            refused.append(_row(record, fault))
        else:
            groups.setdefault(record.scan_id, []).append((record, digest))
    sound: list[tuple[ScanRecord, str]] = []
    for same in groups.values():
        first, digest = same[0]
        equal = all(other == digest for _, other in same)
        if equal:
            sound.append(same[0])
        for record, _ in same[1:] if equal else same:
            others = ", ".join(r.path.name for r, _ in same if r is not record)
            relation = "an identical copy of" if equal else "different content under one id as in"
            reason = f"duplicate scan id: {relation} {others or first.path.name}"
            if equal and record.labels != first.labels:
                reason += f"; its labels differ ({_differences(first, record)})"
                log.warning("%s: %s; the first is kept", record.scan_id, reason)
            # Two visits without a column that tells them apart are the commonest cause.
            remedy = "" if equal or record.session_id else "; give visits a session_id"
            refused.append(_row(record, reason + remedy))
    return [record for record, _ in sound], [digest for _, digest in sound], refused


def _differences(kept: ScanRecord, other: ScanRecord) -> str:
    """Return in words the labels in which two records of one image differ."""
    names = {**kept.labels, **other.labels}
    return ", ".join(
        f"{name} {kept.labels.get(name)!s} and {other.labels.get(name)!s}"
        for name in names
        if kept.labels.get(name) != other.labels.get(name)
    )


def _warn_of_copies(table: pd.DataFrame, source: Path) -> None:
    """Warn of subjects that share an image: they may end in two splits."""
    known = table[table["source_digest"] != ""]
    for _, same in known.groupby("source_digest", sort=False):
        if same["subject_id"].nunique() > 1:
            files = [shown_path(Path(path), source) for path in same["path"]]
            names = ", ".join(same["scan_id"])
            log.warning("one image under several subjects: %s (%s)", names, ", ".join(files))


def _fault(record: ScanRecord) -> str | None:
    if record.path == Path():
        return "no path given"
    if not record.subject_id:
        return "no subject given, or one without a letter or digit of ASCII"
    if not SAFE_ID.fullmatch(record.scan_id):
        return f"id {record.scan_id!r}, expected letters, digits, and - _ . +"
    if len(record.scan_id) > MAX_ID:
        return f"id of {len(record.scan_id)} letters, at most {MAX_ID}: it names files"
    try:
        if record.path.is_dir():
            return "is a folder, expected an image"
        if not record.path.is_file():
            return "file not found"
        return "file is empty (0 bytes)" if record.path.stat().st_size == 0 else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _digest(record: ScanRecord) -> tuple[str, str | None]:
    """Return the digest of a record's file and None, or "" and the fault of the file."""
    try:
        return digest_image(record.path), None
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"


def _row(record: ScanRecord, reason: str) -> QuarantineRow:
    return {
        "scan_id": record.scan_id,
        "path": "" if record.path == Path() else str(record.path),
        "stage": "cohort",
        "reason": reason,
    }


def _hint(source: Path) -> str:
    if source.is_dir() and next(source.rglob("*.dcm"), None):
        return "; it holds DICOM: set cohort.source to dicom"
    return "; expected .nii, .nii.gz, .mgz or .hdr/.img"
