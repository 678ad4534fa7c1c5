"""Any cohort in: a manifest with one row a usable file, and a quarantine list of the rest."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.cohort.candidates import Cohort, candidate_table
from pipeline.cohort.manifest import typed
from pipeline.cohort.split import lopsided, split_subjects, splits_given
from pipeline.labels.columns import ALIASES, DEFAULT_NAMES, IDENTITY, label_table, shown_path
from pipeline.labels.people_tables import PARTICIPANTS, label_records, read_participants
from pipeline.labels.personal_columns import leave_out_personal
from pipeline.labels.scan_records import Record, tidy_path, walk
from pipeline.runtime.devices import available_cpus
from pipeline.runtime.digests import digest_image
from pipeline.runtime.progress import progress
from pipeline.sources.dicom_files import is_dicom
from pipeline.sources.file_kinds import READ as IMAGES
from pipeline.sources.read_source import collect
from schemas.errors import ContractError, ParamsError
from schemas.manifest import MANIFEST_COLUMNS, QUARANTINE_COLUMNS, SELECTION
from schemas.params import CohortParams

log = logging.getLogger(__name__)

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
MAX_ID = 128
"""Letters of a scan id; file systems end names at 255, and endings and hashes come on top."""
TABLES = {".csv", ".tsv", ".parquet"}


def detect_source(path: Path) -> Literal["bids", "folder", "table", "volumes", "dicom"]:
    """Return what an input path is, by its content.

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
    files = [folder / name for folder, names in walk(path) for name in names]
    images = any(p.name.lower().endswith(IMAGES) for p in files)
    return "dicom" if not images and any(is_dicom(p) for p in files) else "folder"


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
) -> Cohort:
    """Return the manifest (schemas.manifest, paths absolute), the quarantine list and candidates.

    Label columns that are not in the contract are kept under their own names. Missing and empty
    files and duplicate scan ids go to the quarantine list with a reason. Rows are in order of
    scan_id. The source data are only read.

    Parameters
    ----------
    cache
        Folder for converted DICOM series.
    dry_run
        Convert nothing and leave out digests, except those that duplicates are judged by.
    judged
        Whether labels will be: warn of those that a split lacks.

    Raises
    ------
    ContractError
        If the input is not there, is malformed, or holds no usable scan.
    """
    source = input_path or params.input
    if source is None:
        raise ParamsError("cohort.input: expected a folder or a table")
    if not source.exists():
        raise ContractError(f"{source}: no such file or folder")
    columns = {ALIASES.get(key, key): value for key, value in params.columns.items()}
    _warn_of_slips(columns)
    named = [name for name in IDENTITY if name in columns]
    if named == ["session_id"] and (source / PARTICIPANTS).is_file():
        named = []  # the column of participants.tsv that tells visits apart
    if named and params.source != "table":
        raise ParamsError(
            f"cohort.columns: {', '.join(named)} come from the files themselves where"
            f" cohort.source is {params.source}; give a table of scans, or leave them out"
        )
    records, refused = _labelled(params, source, columns, cache, dry_run=dry_run)
    records, digests, more = _sound(records, dry_run=dry_run)
    refused = [row | {"path": str(tidy_path(Path(row["path"])))} for row in refused] + more
    refused = sorted(refused, key=lambda row: row["stage"] == SELECTION)
    if not records:
        first = refused[0] if refused else None
        detail = f"; first refused: {first['path']}: {first['reason']}" if first else _hint(source)
        raise ContractError(f"{source}: no usable T1w image found{detail}")
    table = typed(label_table(records, digests, columns, source), source)
    _warn_of_copies(table, source)
    table["split"] = _splits(table, params, source)
    for label in ("diagnosis", "sex") if judged else ():
        lacking = lopsided(table, label)
        if lacking is not None:
            log.warning(
                "%s: %s; probes of it cannot be judged there (another cohort.split.seed, or a"
                " column `split` of yours)",
                label,
                lacking,
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
    splits = split_subjects({str(k): str(v) for k, v in strata.items()}, params.split)
    return [splits[name] for name in table["subject_id"]]


def _warn_of_slips(columns: Mapping[str, str]) -> None:
    """Tell of names that look like one of those with a meaning; any other is a label's own."""
    meant = [*DEFAULT_NAMES, *ALIASES, *IDENTITY]
    for name, column in columns.items():
        near = get_close_matches(name, meant, 1, cutoff=0.76) if name not in meant else []
        if near:
            log.warning(
                "cohort.columns: %s becomes a label called %s; was %s meant?", column, name, near[0]
            )


def quarantine_table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Return a quarantine list (schemas.manifest) from its rows."""
    return pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS))


def _labelled(
    params: CohortParams,
    source: Path,
    columns: dict[str, str],
    cache: Path | None,
    *,
    dry_run: bool,
) -> tuple[list[Record], list[dict[str, str]]]:
    """Return the source's scans with their labels, and quarantine rows of what is not taken."""
    people = read_participants(source, columns)
    records, refused = collect(params, source, columns, cache, listed=people, dry_run=dry_run)
    if params.source != "table":
        label_records(source, records, people, columns)
    leave_out_personal(records, columns, params.leave_out, str(source))
    return records, refused


def _sound(
    records: list[Record], *, dry_run: bool
) -> tuple[list[Record], list[str], list[dict[str, str]]]:
    """Split records into sound ones with their digests, and quarantine rows."""
    refused: list[dict[str, str]] = []
    there: list[Record] = []
    for record in sorted(records, key=lambda r: (r.scan_id, str(r.path))):
        fault = _fault(record)
        if fault:
            refused.append(_row(record, fault))
        else:
            there.append(record)
    shared = Counter(record.scan_id for record in there)
    with ThreadPoolExecutor(max(1, min(8, available_cpus()))) as pool:
        made = pool.map(lambda r: "" if dry_run and shared[r.scan_id] == 1 else _digest(r), there)
        digests = list(progress(made, total=len(there), label="Digests"))
    groups: dict[str, list[tuple[Record, str]]] = {}
    for record, digest in zip(there, digests, strict=True):
        if digest.startswith("!"):
            refused.append(_row(record, digest[1:]))
        else:
            groups.setdefault(record.scan_id, []).append((record, digest))
    sound: list[tuple[Record, str]] = []
    for same in groups.values():
        first, digest = same[0]
        equal = all(other == digest for _, other in same)
        if equal:
            sound.append(same[0])
        for record, _ in same[1:] if equal else same:
            others = ", ".join(r.path.name for r, _ in same if r is not record)
            what = "an identical copy of" if equal else "different content under one id as in"
            reason = f"duplicate scan id: {what} {others or first.path.name}"
            if equal and record.labels != first.labels:
                reason += f"; its labels differ ({_differences(first, record)})"
                log.warning("%s: %s; the first is kept", record.scan_id, reason)
            # Two visits without a column that tells them apart are the commonest cause.
            told = "" if equal or record.session_id else "; give visits a session_id"
            refused.append(_row(record, reason + told))
    return [record for record, _ in sound], [digest for _, digest in sound], refused


def _differences(kept: Record, other: Record) -> str:
    """Return the labels that two records of one image disagree on."""
    names = {**kept.labels, **other.labels}
    return ", ".join(
        f"{name} {kept.labels.get(name)!s} and {other.labels.get(name)!s}"
        for name in names
        if kept.labels.get(name) != other.labels.get(name)
    )


def _warn_of_copies(table: pd.DataFrame, source: Path) -> None:
    """Name people who share an image: as two subjects they may end in two splits."""
    known = table[table["source_digest"] != ""]
    for _, same in known.groupby("source_digest", sort=False):
        if same["subject_id"].nunique() > 1:
            files = [shown_path(Path(path), source) for path in same["path"]]
            names = ", ".join(same["scan_id"])
            log.warning("one image under several subjects: %s (%s)", names, ", ".join(files))


def _fault(record: Record) -> str | None:
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


def _digest(record: Record) -> str:
    """Return the digest of a record's file, or "!" and why there is none."""
    try:
        return digest_image(record.path)
    except OSError as error:
        return f"!cannot be read ({error.strerror})"


def _row(record: Record, reason: str) -> dict[str, str]:
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
