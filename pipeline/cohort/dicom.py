"""DICOM series folders: converted once with dcm2niix, without what names a person."""

import gzip
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib

from pipeline.cohort.names import Labels
from pipeline.cohort.records import Record, natural, walk
from pipeline.compute import available_cpus, digest_of, progress, write_atomic
from pipeline.imaging.header import check_shape
from schemas.errors import ContractError, ScanError

log = logging.getLogger(__name__)

SUFFIXES = (".dcm", ".ima", ".dicom")
MAGIC_OFFSET = 128
TIMEOUT = 1800.0
"""Longest conversion of one session (s)."""
T1_NAME = re.compile(r"t1|mprage|mp-rage|spgr|bravo|tfl|tfe|ir-?fspgr", re.IGNORECASE)
"""What the series description of a T1w usually holds."""
PERSONAL_FIELDS = ("descrip", "aux_file", "intent_name", "data_type", "db_name")
"""Header texts that may hold a name, a comment or a time; they are emptied."""
OPTIONS = ("-b", "n", "-z", "n", "-d", "0", "-f", "%s_%d")
"""No sidecar, no compression, this folder alone; series number and description as a name."""


@dataclass(frozen=True, slots=True)
class Session:
    """The DICOM folders of one subject's session."""

    subject_id: str
    session_id: str
    folders: tuple[Path, ...]

    @property
    def scan_id(self) -> str:
        """Name of the one T1w that is taken."""
        return "_".join(filter(None, (self.subject_id, self.session_id)))


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM: by its name, or by the mark after its preamble."""
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_OFFSET)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def dicom_sessions(root: Path) -> list[Session]:
    """Return the sessions below a folder, named by its subfolders alone.

    The subject is the first folder below the root. The session is the folder named `ses-…`, else
    the second folder where there are three or more levels (subject/session/series).
    """
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    label = Labels(root)
    for folder in _series_folders(root):
        levels = folder.relative_to(root).parts or (root.name,)
        marked = next((name for name in levels[1:] if name.startswith("ses-")), None)
        session = marked or (levels[1] if len(levels) > 2 else "")
        subject = label("sub", levels[0])
        groups[subject, label("ses", session, within=subject)].append(folder)
    return [Session(*names, tuple(folders)) for names, folders in sorted(groups.items())]


def dicom_records(root: Path, cache: Path | None) -> tuple[list[Record], list[dict[str, str]]]:
    """Return one converted T1w a session, and the sessions without one.

    Images go to `<cache>/<scan_id>.nii.gz`; a session whose files did not change is not converted
    again. Nothing of the DICOM headers is kept but geometry and voxels. Without a cache nothing is
    converted: the records carry a file of the series (for a dry run).

    Raises
    ------
    ContractError
        If dcm2niix is not installed, or there is no DICOM file.
    """
    sessions = dicom_sessions(root)
    if not sessions:
        raise ContractError(f"{root}: no DICOM file found")
    if cache is None:
        return [_record(s, next(filter(is_dicom, _files(s.folders[0])))) for s in sessions], []
    converter = find_converter()
    cache.mkdir(parents=True, exist_ok=True)
    records, refused = [], []
    with ThreadPoolExecutor(available_cpus()) as pool:
        made = pool.map(lambda session: _convert(session, root, cache, converter), sessions)
        for session, fault in zip(
            sessions, progress(made, total=len(sessions), label="DICOM"), strict=True
        ):
            path = cache / f"{session.scan_id}.nii.gz"
            if fault is None:
                records.append(_record(session, path))
            else:
                where = str(session.folders[0])
                row = {"scan_id": session.scan_id, "path": where, "stage": "cohort"}
                refused.append(row | {"reason": fault})
    return records, refused


def find_converter() -> str:
    """Return the dcm2niix executable: beside this Python, or on the PATH.

    Raises
    ------
    ContractError
        If there is none.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("dcm2niix", path=path)
    if found is None:
        raise ContractError(
            "DICOM needs dcm2niix, which is not installed; run pip install 'ldae-pipeline[dicom]'"
        )
    return found


def _record(session: Session, path: Path) -> Record:
    return Record(session.scan_id, session.subject_id, session.session_id, path)


def _series_folders(root: Path) -> Iterator[Path]:
    for folder, names in walk(root):
        if any(is_dicom(folder / name) for name in names):
            yield folder


def _convert(session: Session, root: Path, cache: Path, converter: str) -> str | None:
    """Convert one session into the cache; returns why not, or None."""
    target, mark = cache / f"{session.scan_id}.nii.gz", cache / f"{session.scan_id}.source"
    state = digest_of([root.name, [_state(folder) for folder in session.folders]])
    if target.is_file() and mark.is_file() and mark.read_text() == state:
        return None
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=".converting-") as temporary:
            for folder in session.folders:
                command = [converter, *OPTIONS, "-o", temporary, str(folder)]
                subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
            image = _choose(session.scan_id, sorted(Path(temporary).glob("*.nii")))
            write_anonymous(image, target)
    except ScanError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"dcm2niix took longer than {TIMEOUT:.0f} s"
    write_atomic(mark, state)
    return None


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Return what changes when the files of a folder do; only its digest is kept."""
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in _files(folder)]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file())


def _choose(scan_id: str, images: list[Path]) -> Path:
    """Return the T1w of a session: by its description, then by size, then the first series."""
    volumes = [(path, voxels) for path in images if (voxels := _voxels(path))]
    named = [entry for entry in volumes if T1_NAME.search(entry[0].stem)]
    if not volumes:
        raise ScanError(f"no 3D volume in the DICOM folders ({len(images)} images converted)")
    if not named and len(volumes) > 1:
        raise ScanError(
            f"{len(volumes)} volumes and none has T1 in its series description; leave one series"
        )
    taken = min(named or volumes, key=lambda entry: (-entry[1], natural(entry[0].stem)))[0]
    others = [path.stem for path, _ in volumes if path != taken]
    if others:
        log.info("%s: several series; %s taken, not %s", scan_id, taken.stem, others)
    return taken


def _voxels(path: Path) -> int:
    """Return the number of voxels of a 3D volume, 0 for anything else."""
    try:
        image: Any = nib.load(path)
        x, y, z = check_shape(tuple(int(n) for n in image.shape))
    except (ScanError, OSError, ValueError, nib.filebasedimages.ImageFileError):
        return 0
    return x * y * z


def write_anonymous(source: Path, target: Path) -> None:
    """Compress a NIfTI-1 file without its header texts and extensions; equal input, equal bytes."""
    content = source.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    voxels = content[int(header["vox_offset"]) :]
    for name in PERSONAL_FIELDS:
        header[name] = b""
    header["vox_offset"] = 352
    plain = header.binaryblock + bytes(4) + voxels
    write_atomic(target, gzip.compress(plain, compresslevel=6, mtime=0))
