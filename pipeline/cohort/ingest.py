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

from pipeline.cohort.bids import bids_records
from pipeline.cohort.dicom import dicom_records, is_dicom
from pipeline.cohort.folder import SUFFIXES as IMAGES
from pipeline.cohort.folder import folder_records
from pipeline.cohort.labels import ages_of, sex_of
from pipeline.cohort.manifest import typed
from pipeline.cohort.records import Record, walk
from pipeline.cohort.split import lopsided, split_subjects, splits_given
from pipeline.cohort.table import table_records
from pipeline.compute import available_cpus, digest_image, progress
from schemas.errors import ContractError, ParamsError
from schemas.manifest import MANIFEST_COLUMNS, QUARANTINE_COLUMNS
from schemas.params import CohortParams

log = logging.getLogger(__name__)

DEFAULT_NAMES = {
    "age_years": ("age_years", "age"),
    "sex": ("sex", "gender", "ptgender"),
    "diagnosis": ("diagnosis", "dx", "group"),
    "months_from_first": ("months_from_first", "months"),
    "split": ("split",),
}
"""Label columns and the names they go by, in small or capital letters; cohort.columns first."""
ALIASES = {
    "age": "age_years",
    "gender": "sex",
    "dx": "diagnosis",
    "months": "months_from_first",
    "subject": "subject_id",
    "session": "session_id",
    "scan": "scan_id",
    "file": "path",
}
IDENTITY = ("path", "subject_id", "session_id", "scan_id")
"""Columns that a table of scans gives; other sources have these from the names of files."""
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
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
    if has_subjects and (marked or next(path.glob("sub-*/**/anat/*_T1w.nii*"), None)):
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
    judged: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the manifest (schemas.manifest, paths absolute) and the quarantine list.

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
    if named and params.source != "table":
        raise ParamsError(
            f"cohort.columns: {', '.join(named)} come from the files themselves where"
            f" cohort.source is {params.source}; give a table of scans, or leave them out"
        )
    if params.source == "dicom":
        if cache is None and not dry_run:
            raise ParamsError("cohort.source dicom: expected a folder for converted images")
        records, refused = dicom_records(source, None if dry_run else cache)
    else:
        records, refused = _collect(params.source, source, columns)
    records, digests, more = _sound(records, dry_run=dry_run)
    refused += more
    if not records:
        first = refused[0] if refused else None
        detail = f"; first refused: {first['path']}: {first['reason']}" if first else _hint(source)
        raise ContractError(f"{source}: no usable T1w image found{detail}")
    table = typed(_table(records, digests, columns, source), source)
    _warn_of_copies(table)
    table["months_from_first"] = _months(table)
    if table["split"].notna().any():
        table["split"] = splits_given(table["split"], table["subject_id"], source)
        log.info("%s: its column `split` is taken as it is; cohort.split plays no part", source)
    else:
        strata = table.groupby("subject_id")["diagnosis"].first().fillna("").astype(str).to_dict()
        splits = split_subjects({str(k): str(v) for k, v in strata.items()}, params.split)
        table["split"] = [splits[name] for name in table["subject_id"]]
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
    return table[[*MANIFEST_COLUMNS, *extra]], quarantine_table(refused)


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


def _collect(
    kind: str, source: Path, columns: dict[str, str]
) -> tuple[list[Record], list[dict[str, str]]]:
    if kind == "bids":
        return bids_records(source)
    if kind == "table":
        return table_records(source, columns), []
    if kind == "folder":
        return folder_records(source), []
    raise ParamsError(f"cohort.source {kind}: expected bids, folder, table or dicom here")


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


def _warn_of_copies(table: pd.DataFrame) -> None:
    """Name people who share an image: as two subjects they may end in two splits."""
    known = table[table["source_digest"] != ""]
    for _, same in known.groupby("source_digest", sort=False):
        if same["subject_id"].nunique() > 1:
            log.warning("one image under several subjects: %s", ", ".join(same["scan_id"]))


def _fault(record: Record) -> str | None:
    if record.path == Path():
        return "no path given"
    if not record.subject_id:
        return "no subject given, or one without a letter or digit of ASCII"
    if not SAFE_ID.fullmatch(record.scan_id):
        return f"id {record.scan_id!r}, expected letters, digits, and - _ . +"
    if not record.path.is_file():
        return "file not found"
    if record.path.stat().st_size == 0:
        return "file is empty (0 bytes)"
    return None


def _digest(record: Record) -> str:
    """Return the digest of a record's file, or "!" and why there is none."""
    try:
        return digest_image(record.path)
    except OSError as error:
        return f"!cannot be read: {error.strerror}"


def _row(record: Record, reason: str) -> dict[str, str]:
    return {
        "scan_id": record.scan_id,
        "path": "" if record.path == Path() else str(record.path),
        "stage": "cohort",
        "reason": reason,
    }


def _table(
    records: list[Record], digests: list[str], columns: dict[str, str], source: Path
) -> pd.DataFrame:
    labels = pd.DataFrame([record.labels for record in records], dtype=object)
    have = [str(name) for name in labels]
    for target, wanted in columns.items():
        if target not in IDENTITY and wanted not in have:
            raise ContractError(
                f"{source}: no column {wanted!r} with entries, wanted for {target}"
                f" (there are {', '.join(have) or 'none'})"
            )
    given = {target: wanted for target, wanted in columns.items() if wanted in have}
    renamed = pd.DataFrame({target: labels[wanted] for target, wanted in given.items()})
    rest = labels.drop(columns=[c for c in labels if c in given or c in given.values()])
    labels = pd.concat([renamed, rest], axis=1)
    for target, names in DEFAULT_NAMES.items():
        spelt = {str(name).lower(): name for name in reversed(labels.columns)}
        found = next((spelt[name] for name in names if name in spelt), None)
        labels[target] = labels.pop(found) if found is not None else None
    labels["sex"] = [sex_of(cell) for cell in labels["sex"]]
    labels["age_years"] = ages_of(labels["age_years"], [record.scan_id for record in records])
    own = pd.DataFrame(
        {
            "scan_id": [r.scan_id for r in records],
            "subject_id": [r.subject_id for r in records],
            "session_id": [r.session_id for r in records],
            "path": [str(r.path.absolute()) for r in records],
            "source_digest": digests,
        }
    )
    clashes = [name for name in labels if name in own]
    return pd.concat([own, labels.drop(columns=clashes)], axis=1)


def _months(table: pd.DataFrame) -> "pd.Series[float]":
    """Return months since each subject's first scan.

    As given; else from session names such as `ses-M06`; else from the ages at the scans; else 0
    for a single scan and missing for several.
    """
    given = table["months_from_first"].astype(float)
    named = table["session_id"].str.extract(r"^ses-[Mm](\d+)$")[0].astype(float)
    ages = table["age_years"].astype(float) * 12
    groups = table["subject_id"]
    from_age = ages - ages.groupby(groups).transform("min")
    from_age = from_age.where(ages.groupby(groups).transform("nunique") > 1)
    named = named - named.groupby(groups).transform("min")
    single = (groups.groupby(groups).transform("size") == 1).map({True: 0.0, False: float("nan")})
    months = given.fillna(named).fillna(from_age).fillna(single)
    return months.round(2)


def _hint(source: Path) -> str:
    if source.is_dir() and next(source.rglob("*.dcm"), None):
        return "; it holds DICOM: set cohort.source to dicom"
    return "; expected .nii, .nii.gz, .mgz or .hdr/.img"
