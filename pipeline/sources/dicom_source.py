"""DICOM series folders: one image a session, converted by dcm2niix without personal data."""

import gzip
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib

from pipeline.labels.names import BidsLabels
from pipeline.labels.scan_records import ScanRecord, walk
from pipeline.runtime.dcm2niix import find_dcm2niix
from pipeline.runtime.devices import available_cpus
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_atomic
from pipeline.runtime.progress import counted, progress
from pipeline.sources.dicom_conversion import convert_series
from pipeline.sources.dicom_files import is_dicom
from pipeline.sources.dicom_headers import Headers, Series, read_headers
from pipeline.sources.dicom_series import Selection, notes_of, select, why_later
from schemas.errors import ContractError, ScanError
from schemas.manifest import SELECTION, QuarantineRow

log = logging.getLogger(__name__)


PERSONAL_FIELDS = ("descrip", "aux_file", "intent_name", "data_type", "db_name")
"""Header texts that may hold a name, a comment or a time; they are emptied."""
RULE_VERSION = 1
"""Raised when the rules of selection change, so that sessions are selected again."""
MAX_NAMED = 8
"""Largest number of series named in a reason."""


@dataclass(frozen=True, slots=True)
class Session:
    """The DICOM folders of one subject's session."""

    subject_id: str
    session_id: str
    folders: tuple[Path, ...]

    @property
    def scan_id(self) -> str:
        """Scan id of the one T1w that is taken."""
        return "_".join(filter(None, (self.subject_id, self.session_id)))


def dicom_sessions(root: Path, closed: list[tuple[Path, str]] | None = None) -> list[Session]:
    """Return the sessions below a folder, named by its subfolders alone.

    The subject is the first folder below the root. The session is the folder named `ses-…`, else
    the second folder where there are three or more levels (subject/session/series). Folders that
    cannot be opened are added to `closed` with the reason.
    """
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    label = BidsLabels(root)
    for folder in _series_folders(root, closed):
        levels = folder.relative_to(root).parts or (root.name,)
        marked = next((name for name in levels[1:] if name.startswith("ses-")), None)
        session = marked or (levels[1] if len(levels) > 2 else "")
        subject = label("sub", levels[0])
        groups[subject, label("ses", session, within=subject)].append(folder)
    return [Session(*names, tuple(folders)) for names, folders in sorted(groups.items())]


@dataclass
class SessionOutcome:
    """Result of converting a session, as kept in JSON beside the image."""

    taken: str = ""
    """Name of the series."""
    path: Path | None = None
    """The converted image, or a file of the series where nothing is converted; None for none."""
    notes: list[str] = field(default_factory=list)
    """Oddities of the image."""
    rows: list[QuarantineRow] = field(default_factory=list)
    """Quarantine rows: of other series, and of the session where nothing could be taken."""


def dicom_records(
    root: Path, cache: Path | None, prefer: Sequence[str] = (), contrast: str = "T1w"
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return one converted image of a contrast a session, and quarantine rows of the other series.

    The series is chosen by its headers (`dicom_series.select`, with the words of `prefer` first);
    if it cannot be converted, the next one is. Images go to `<cache>/<scan_id>.nii.gz`; a session
    whose files did not change is not read again. Of the DICOM headers only geometry, voxels and
    the series' descriptions are kept; labels come from a participants.tsv in the root, if there is
    one. Without a cache (in a dry run) nothing is converted: the path of a record is a file of the
    series that would be taken.

    Raises
    ------
    ContractError
        If dcm2niix or pydicom is not installed, or there is no DICOM file.
    """
    closed: list[tuple[Path, str]] = []
    sessions = dicom_sessions(root, closed)
    if not sessions:
        raise ContractError(f"{root}: no DICOM file found")
    converter = find_dcm2niix() if cache is not None else None
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    records: list[ScanRecord] = []
    refused: list[QuarantineRow] = [
        {"scan_id": path.name, "path": str(path), "stage": "cohort", "reason": why}
        for path, why in closed
    ]

    def work(session: Session) -> SessionOutcome:
        if cache is None or converter is None:
            read = _read_session(session, prefer, contrast)
            first = next(iter(read.selection.candidates), None)
            return (
                read.outcome(first, first.files[0], []) if first else SessionOutcome(rows=read.rows)
            )
        return _convert(session, root, cache, converter, prefer, contrast)

    with ThreadPoolExecutor(available_cpus()) as pool:
        outcomes = progress(pool.map(work, sessions), total=len(sessions), label="DICOM")
        for session, outcome in zip(sessions, outcomes, strict=True):
            refused += outcome.rows
            if outcome.path is None:
                continue
            left = [row["reason"] for row in outcome.rows if row["stage"] == SELECTION]
            log.info(
                "%s: series %s taken%s",
                session.scan_id,
                outcome.taken,
                f"; left: {'; '.join(left)}" if left else "",
            )
            record = ScanRecord(
                session.scan_id, session.subject_id, session.session_id, outcome.path
            )
            record.notes = tuple(outcome.notes)
            records.append(record)
    return records, refused


def _series_folders(root: Path, closed: list[tuple[Path, str]] | None = None) -> Iterator[Path]:
    for folder, names in walk(root, closed):
        if any(is_dicom(folder / name) for name in names):
            yield folder


@dataclass(frozen=True, slots=True)
class _SessionSeries:
    """Series of a session, and the selection among them."""

    session: Session
    prefer: Sequence[str]
    contrast: str
    order: list[Series]
    selection: Selection
    rows: list[QuarantineRow]
    """Quarantine rows of unreadable files, and of the session where it is refused."""

    def outcome(self, taken: Series, path: Path, failed: list[QuarantineRow]) -> SessionOutcome:
        """Return the outcome if this series is taken; `failed` are rows of those before it."""
        lost = {row["path"] for row in failed}
        left = {id(series): reason for series, reason in self.selection.left}
        for series in self.selection.candidates:
            if series is not taken and str(series.files[0]) not in lost:
                left[id(series)] = why_later(series, taken, self.prefer, self.contrast)
        rows = [
            _row(self.session, s.files[0], f"series {s.name}: {left[id(s)]}", SELECTION)
            for s in self.order
            if id(s) in left
        ]
        return SessionOutcome(
            _name_and_edge(taken), path, notes_of(taken), self.rows + failed + rows
        )


def _read_session(session: Session, prefer: Sequence[str], contrast: str) -> _SessionSeries:
    files = [path for folder in session.folders for path in _files(folder) if is_dicom(path)]
    headers = read_headers(files)
    rows = []
    if headers.unreadable:
        rows.append(_row(session, headers.unreadable[0], _unreadable(headers, files)))
    if fault := _mixed(headers):
        rows.append(_row(session, session.folders[0], fault))
        nothing = Selection([], [])
        return _SessionSeries(session, prefer, contrast, headers.series, nothing, rows)
    selection = select(headers, prefer, contrast)
    if not selection.candidates:
        why = [f"{series.name}: {reason}" for series, reason in selection.left]
        # T1w that are not whole come first: these can be mended.
        why.sort(key=lambda text: "slices" not in text and "volumes" not in text)
        more = f"; and {len(why) - MAX_NAMED} more" if len(why) > MAX_NAMED else ""
        listed = "; ".join(why[:MAX_NAMED]) + more or "no image"
        rows.append(_row(session, session.folders[0], f"no usable {contrast} series ({listed})"))
    return _SessionSeries(session, prefer, contrast, headers.series, selection, rows)


def _name_and_edge(series: Series) -> str:
    return f"{series.name} ({series.edge:.1f} mm)"


def _convert(
    session: Session,
    root: Path,
    cache: Path,
    converter: str,
    prefer: Sequence[str],
    contrast: str,
) -> SessionOutcome:
    """Convert the image of one session into the cache, or the next series if that fails."""
    target, mark = cache / f"{session.scan_id}.nii.gz", cache / f"{session.scan_id}.source"
    folders = [_state(folder) for folder in session.folders]
    # Sessions that were converted before there was a choice of contrast are not read again.
    other = [] if contrast == "T1w" else [contrast]
    state = digest_of([root.name, folders, list(prefer), RULE_VERSION, *other])
    before = _read_mark(mark)
    if target.is_file() and before.get("state") == state:
        return SessionOutcome(before["taken"], target, before["notes"], before["rows"])
    read = _read_session(session, prefer, contrast)
    failed: list[QuarantineRow] = []
    for series in read.selection.candidates:
        try:
            with tempfile.TemporaryDirectory(dir=cache, prefix=".converting-") as temporary:
                image, notes = convert_series(series, Path(temporary), converter)
                write_anonymous(image, target)
        except ScanError as error:
            failed.append(_row(session, series.files[0], f"series {series.name}: {error}"))
            continue
        outcome = read.outcome(series, target, failed)
        outcome.notes += notes
        kept = {"taken": outcome.taken, "notes": outcome.notes, "rows": outcome.rows}
        write_atomic(mark, json.dumps({"state": state} | kept))
        return outcome
    return SessionOutcome(rows=read.rows + failed)


def _read_mark(path: Path) -> dict[str, Any]:
    """Return the JSON kept of a conversion; {} if there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _row(session: Session, path: Path, reason: str, stage: str = "cohort") -> QuarantineRow:
    return {"scan_id": session.scan_id, "path": str(path), "stage": stage, "reason": reason}


def _unreadable(headers: Headers, files: Sequence[Path]) -> str:
    count = len(headers.unreadable)
    return f"{count} of {counted(len(files), 'file')} hold no readable DICOM header; left out"


def _mixed(headers: Headers) -> str | None:
    """Return the fault of a session with files of several people or examinations, or None.

    Ids identify people, so a file of each is named instead.
    """
    for kind, ids, field_name, remedy in (
        ("patients", headers.people, "PatientID", "give each a folder of its own"),
        ("studies", headers.studies, "StudyInstanceUID", "put each into a folder ses-… of its own"),
    ):
        if len(ids) > 1:
            one, other, *_ = ids.values()
            return (
                f"files of {len(ids)} {kind} in one session ({field_name} differs, as in"
                f" {one.parent.name}/{one.name} and {other.parent.name}/{other.name}); {remedy}"
            )
    return None


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of the files of a folder, to notice changes."""
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in _files(folder)]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file())


def write_anonymous(source: Path, target: Path) -> None:
    """Write a compressed copy of a NIfTI-1 file without header texts and extensions.

    Equal input gives equal bytes.
    """
    content = source.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    voxels = content[int(header["vox_offset"]) :]
    for name in PERSONAL_FIELDS:
        header[name] = b""
    header["vox_offset"] = 352
    plain = header.binaryblock + bytes(4) + voxels
    write_atomic(target, gzip.compress(plain, compresslevel=6, mtime=0))
