"""Plain folders of images: ids are made from names of folders and files."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.labels.names import BidsLabels
from pipeline.labels.scan_records import ScanRecord, bids_label, entities, walk
from pipeline.runtime.digests import other_half
from pipeline.runtime.progress import counted
from pipeline.sources.dicom_files import is_dicom
from pipeline.sources.file_kinds import FOREIGN, READ, image_format, stem_of
from pipeline.sources.folder_owners import Owner, owners_of
from pipeline.sources.image_copies import drop_copies
from pipeline.sources.named_contrast import not_of
from schemas.manifest import SELECTION, QuarantineRow

log = logging.getLogger(__name__)

SUFFIXES = READ
FREESURFER = ("T1.mgz", "orig.mgz", "rawavg.mgz")
"""Taken from a FreeSurfer `mri` folder, in this order of preference."""
HIDDEN = "."
"""First letter of hidden files, and of those that a Mac adds (`._x.nii`)."""


def folder_records(
    root: Path, contrast: str = "T1w"
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return every image of a contrast below a folder (or the one file given), and rows of others.

    `sub-` and `ses-` in a file name are kept; else `owners_of` finds the subject. In a FreeSurfer
    `mri` folder only the T1 is taken. Images of another contrast by name, results (masks,
    segmentations, SPM's and CAT12's), copies of another image and files of formats that are not
    read have a quarantine row each; other files of a FreeSurfer folder, and DICOM files of one
    folder, have one together. A folder that cannot be opened has one.

    Raises
    ------
    ContractError
        If the names of two subjects become the same label.
    """
    label = BidsLabels(root)
    if root.is_file():
        return _records([root], root.parent, label), []
    images: list[Path] = []
    closed: list[tuple[Path, str]] = []
    tree = list(walk(root, closed))
    left = [(path, "cohort", why) for path, why in closed]
    stems = {folder: _stems(names) for folder, names in tree}
    for folder, names in tree:
        mri = _freesurfer_t1(folder)
        if mri is not None:
            taken_here = mri if contrast == "T1w" else None
            left += _freesurfer_row(folder, names, taken_here)
            names = [name for name in names if folder / name == taken_here]
        left += _dicom_row(folder, names)
        near = frozenset().union(*(stems.get(f, ()) for f in (folder, *folder.parents[:2])))
        for name in names:
            path = folder / name
            if not _is_image(path):
                continue
            stage, why = _why_left(path, near, root, contrast)
            if why:
                left.append((path, stage, why))
            else:
                images.append(path)
    images, copies = drop_copies(images, root)
    left += [(path, SELECTION, why) for path, why in copies]
    taken = _records(images, root, label)
    _log_images(root, taken, left)
    rows: list[QuarantineRow] = [
        {"scan_id": stem_of(path.name), "path": str(path), "stage": stage, "reason": why}
        for path, stage, why in left
    ]
    return sorted(taken, key=lambda record: str(record.path)), rows


def _stems(names: list[str]) -> frozenset[str]:
    return frozenset(stem_of(name).lower() for name in names if image_format(name))


def _is_image(path: Path) -> bool:
    """Return whether a file is an image of its own (of a pair, the header)."""
    if path.name.startswith(HIDDEN) or path.parent.name.startswith(HIDDEN):
        return False
    header = other_half(path)
    paired = path.suffix.lower() == ".img" and header is not None and header.is_file()
    second = path.suffix.lower() in {".rec", ".brik"} and any(
        path.with_suffix(suffix).is_file() for suffix in (".par", ".PAR", ".HEAD", ".head")
    )
    return image_format(path.name) is not None and not paired and not second


def _why_left(
    path: Path, stems: frozenset[str], root: Path, contrast: str
) -> tuple[str, str | None]:
    """Return the quarantine stage and the reason for which an image is not taken, or None."""
    suffix = image_format(path.name)
    if suffix in FOREIGN:
        return "cohort", f"{suffix} is not read: {FOREIGN[suffix]}"
    header = other_half(path)
    if path.suffix.lower() == ".img" and header is not None and not header.exists():
        return "cohort", f"its header {header.name} is missing"
    why = not_of(contrast, path, stems, root)
    remedy = f"; if it is a {contrast}, rename it or list it in a table"
    return SELECTION, f"no {contrast}: {why}{remedy}" if why else None


def _freesurfer_t1(folder: Path) -> Path | None:
    """Return the T1 of the FreeSurfer subject whose `mri` folder this is or lies above."""
    for mri in (folder, *folder.parents[:2]):
        if mri.name == "mri":
            return next((mri / name for name in FREESURFER if (mri / name).is_file()), None)
    return None


def _freesurfer_row(
    folder: Path, names: list[str], taken: Path | None
) -> Iterator[tuple[Path, str, str]]:
    """Yield one row for all other images of a FreeSurfer folder."""
    others = [name for name in names if image_format(name) and folder / name != taken]
    if others:
        count = counted(len(others), "further image")
        which = f"{taken.name} is taken" if taken else "none is taken"
        yield folder / others[0], SELECTION, f"{count} of FreeSurfer here; {which}"


def _dicom_row(folder: Path, names: list[str]) -> Iterator[tuple[Path, str, str]]:
    """Yield one row for all DICOM files of a folder."""
    files = [name for name in names if image_format(name) is None and is_dicom(folder / name)]
    if files:
        reason = (
            f"{counted(len(files), 'DICOM file')} among other images; convert with dcm2niix, or"
            " give the DICOM folders alone"
        )
        yield folder / files[0], "cohort", reason


def _log_images(root: Path, taken: list[ScanRecord], left: list[tuple[Path, str, str]]) -> None:
    """Log images that are left out, and warn of subjects with several images in one session."""
    if left:
        log.info(
            "%s: not taken: %s (%s); quarantine.csv has all",
            root,
            counted(len(left), "image"),
            ", ".join(path.name for path, *_ in left[:3]) + (", …" if len(left) > 3 else ""),
        )
    visits = Counter((record.subject_id, record.session_id) for record in taken)
    images = defaultdict(list)
    for record in taken:
        images[record.subject_id, record.session_id].append(record.path.name)
    several = [visit for visit, count in visits.items() if count > 1]
    if several:
        first = several[0]
        log.warning(
            "%s: %s more than one image without a session to tell them apart (%s: %s); each is"
            " taken as a scan; leave one, or give a table with subject_id and session_id",
            root,
            "1 subject has" if len(several) == 1 else f"{len(several)} subjects have",
            first[0],
            ", ".join(images[first][:4]) + (", …" if len(images[first]) > 4 else ""),
        )


def _records(paths: list[Path], root: Path, label: BidsLabels) -> list[ScanRecord]:
    """Return one record an image."""
    named = {path: entities(path.name) for path in paths}
    plain = [path for path in paths if "sub" not in named[path] and path.parent.name != "mri"]
    owners = owners_of(plain, root)
    ids = Counter(_names(owner, label, named[path])[2] for path, owner in owners.items())
    records = []
    for path in paths:
        if path in owners:
            owner = owners[path]
            subject, session, scan_id = _names(owner, label, named[path])
            if ids[scan_id] > 1:
                # One person's images in two trees, `raw` and `processed`, differ above alone.
                more = replace(owner, rest=(*owner.above, *owner.rest))
                subject, session, scan_id = _names(more, label, named[path])
        else:
            subject, session, scan_id = _as_written(path, named[path], label)
        records.append(ScanRecord(scan_id, subject, session, path))
    return records


def _names(owner: Owner, label: BidsLabels, parts: dict[str, str]) -> tuple[str, str, str]:
    """Return subject, session and scan id of an image by its owner."""
    subject = label("sub", owner.subject)
    session = label("ses", parts.get("ses", "") or owner.session, within=subject)
    acquisition = "".join(map(bids_label, owner.rest))
    acquisition = f"acq-{acquisition}" if acquisition else ""
    return (
        subject,
        session,
        "_".join(filter(None, (subject, owner.session and session, acquisition))),
    )


def _as_written(path: Path, parts: dict[str, str], label: BidsLabels) -> tuple[str, str, str]:
    """Return subject, session and scan id from a BIDS name, or from a FreeSurfer folder."""
    if "sub" not in parts:
        subject = label("sub", path.parent.parent.name)
        return subject, "", subject
    subject = label("sub", parts["sub"])
    session = label("ses", parts.get("ses", ""), within=subject)
    extra = [f"{k}-{v}" for k, v in parts.items() if k not in {"sub", "ses", "desc", "space"}]
    return subject, session, "_".join(p for p in (subject, session, *extra) if p)
