"""A plain tree of images: names become ids."""

import logging
from pathlib import Path

from pipeline.cohort.names import Labels
from pipeline.cohort.records import Record, bids_label, entities, walk
from pipeline.compute import counted, other_half

log = logging.getLogger(__name__)

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
FREESURFER = ("T1.mgz", "orig.mgz", "rawavg.mgz")
"""Taken from a FreeSurfer `mri` folder, in this order of preference."""
OTHER_KINDS = (
    "T2w", "T2star", "FLAIR", "PDw", "bold", "sbref", "dwi", "epi", "mask", "dseg", "probseg",
    "magnitude1", "magnitude2", "phasediff", "defacemask", "xfm",
)  # fmt: skip
"""BIDS suffixes of images that are no T1w."""


def folder_records(root: Path) -> list[Record]:
    """Return every image below a folder (or the one image file given) as a record.

    `sub-` and `ses-` in a file name are kept. Else the subject is the first folder below the
    root, or, for images directly in the root, the file name; letters and digits are kept.
    In a FreeSurfer `mri` folder only the T1 is taken.

    Raises
    ------
    ContractError
        If the names of two subjects become one label.
    """
    label = Labels(root)
    if root.is_file():
        return [_record(root, root.parent, label)]
    files = [
        folder / name
        for folder, names in walk(root)
        for name in names
        if name.lower().endswith(SUFFIXES)
    ]
    taken: list[Record] = []
    skipped: list[str] = []
    for path in sorted(files):
        if _wanted(path):
            taken.append(_record(path, root, label))
        else:
            skipped.append(path.name)
    if skipped:
        log.info(
            "%s: not taken, no T1w by name: %s (%s)",
            root,
            counted(len(skipped), "image"),
            ", ".join(skipped[:3]) + (", …" if len(skipped) > 3 else ""),
        )
    return taken


def _wanted(path: Path) -> bool:
    if any(part.startswith(".") for part in path.parts[-2:]):
        return False
    header = other_half(path)
    if path.suffix.lower() == ".img" and header is not None and header.is_file():
        return False
    if path.parent.name == "mri" and path.suffix == ".mgz":
        best = next((n for n in FREESURFER if (path.parent / n).is_file()), None)
        return path.name == best
    return not _stem(path).endswith(tuple(f"_{kind}" for kind in OTHER_KINDS))


def _stem(path: Path) -> str:
    suffix = next(s for s in SUFFIXES if path.name.lower().endswith(s))
    return path.name[: -len(suffix)]


def _record(path: Path, root: Path, label: Labels) -> Record:
    parts = entities(path.name)
    if "sub" in parts:
        subject = label("sub", parts["sub"])
        session = label("ses", parts.get("ses", ""), within=subject)
        extra = [f"{k}-{v}" for k, v in parts.items() if k not in {"sub", "ses", "desc", "space"}]
        return Record("_".join(p for p in (subject, session, *extra) if p), subject, session, path)
    folders = path.relative_to(root).parts[:-1]
    if path.parent.name == "mri":
        folders = (path.parent.parent.name,)
        subject = label("sub", folders[0])
        return Record(subject, subject, "", path)
    subject = label("sub", folders[0] if folders else _stem(path))
    session = label("ses", parts.get("ses", ""), within=subject)
    rest = [bids_label(name) for name in (*folders[1:], _stem(path))] if folders else []
    acquisition = "".join(part for part in rest if part)
    scan_id = f"{subject}_acq-{acquisition}" if acquisition else subject
    return Record(scan_id, subject, session, path)
