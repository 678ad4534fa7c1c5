"""BIDS datasets: T1w images and truth tables; people.py reads the tables of people and visits."""

import logging
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cohort.names import Labels
from pipeline.cohort.people import PARTICIPANTS, by_folder, folder_names
from pipeline.cohort.records import (
    Record,
    entities,
    is_junk,
    labels_of,
    natural,
    prefixed,
    read_table,
)  # fmt: skip

log = logging.getLogger(__name__)

SUFFIXES = ("_T1w.nii.gz", "_T1w.nii")
TRUTH = Path("derivatives/truth/truth.tsv")
KEPT_ENTITIES = ("acq", "ce", "rec", "run", "echo", "part", "inv")
"""Entities that become part of a scan's name, in BIDS order."""


def bids_records(
    root: Path, listed: Collection[str] = ()
) -> tuple[list[Record], list[dict[str, str]]]:
    """Return one T1w a session of every subject, with its truth, and what is missing.

    A subject of participants.tsv without an image of its own is looked up below `derivatives/`.
    Where a session has several T1w, the one with the fewest entities besides sub and ses is
    taken, then the lowest in natural order; the log names it and the others.

    Parameters
    ----------
    listed
        Subjects of participants.tsv.

    Returns
    -------
    records, refused
        `refused` has a row for each listed participant without any T1w, and for each image whose
        name and folder tell different subjects or sessions.

    Raises
    ------
    ContractError
        If two subjects, or two sessions of one, have names that become one label.
    """
    people, _ = by_folder({name: {} for name in listed}, folder_names(root))
    folders = [p for p in sorted(root.glob("sub-*")) if p.is_dir()]
    raw = [p for s in folders for p in _images(s) if not is_junk(p.name)]
    found = {f"sub-{entities(p.name).get('sub', '')}" for p in raw}
    wanted = set(people) - found
    derived = _derived(root, wanted) if wanted else []
    misnamed = {path: fault for path in (*raw, *derived) if (fault := _misnamed(path))}
    _check_names(root, (*raw, *derived))
    records = _one_a_session([path for path in (*raw, *derived) if path not in misnamed])
    have = {record.subject_id for record in records}
    refused = [
        {"scan_id": path.name.split(".")[0], "path": str(path), "stage": "cohort", "reason": fault}
        for path, fault in misnamed.items()
    ]
    refused += [
        {"scan_id": name, "path": str(root / name), "stage": "cohort",
         "reason": f"listed in {PARTICIPANTS}, but no T1w image was found"}
        for name in sorted(set(people) - have)
    ]  # fmt: skip
    truth = _truth(root)
    for record in records:
        record.labels = truth.get(record.scan_id, {})
    return records, refused


def _check_names(root: Path, paths: tuple[Path, ...]) -> None:
    """Refuse names that would make one subject, or one session, of two."""
    label = Labels(root)
    for parts in map(entities, (path.name for path in paths)):
        subject = label("sub", parts.get("sub", ""))
        label("ses", parts.get("ses", ""), within=subject)


def _images(folder: Path) -> list[Path]:
    inside = [*folder.glob("anat/*_T1w.nii*"), *folder.glob("ses-*/anat/*_T1w.nii*")]
    return sorted(p for p in inside if p.name.endswith(SUFFIXES))


def _misnamed(path: Path) -> str | None:
    """Return what contradicts a file's name in the folders above it, or None."""
    parts = entities(path.name)
    for kind in ("sub", "ses"):
        folder = next((p for p in reversed(path.parts[:-1]) if p.startswith(f"{kind}-")), None)
        named = f"{kind}-{parts[kind]}" if kind in parts else None
        if folder is not None and named != folder:
            return f"its name says {named or f'no {kind}-'}, its folder {folder}; rename one"
    return None


def _derived(root: Path, wanted: set[str]) -> list[Path]:
    """Return T1w images of the wanted subjects below derivatives/, from one pipeline each."""
    chosen: dict[str, Path] = {}
    images: list[Path] = []
    for pipeline in sorted(p for p in (root / "derivatives").glob("*") if p.is_dir()):
        for path in sorted(pipeline.rglob("sub-*_T1w.nii*")):
            subject = f"sub-{entities(path.name).get('sub', '')}"
            usable = path.name.endswith(SUFFIXES) and subject in wanted
            if usable and chosen.setdefault(subject, pipeline) == pipeline:
                images.append(path)
    for pipeline in sorted(set(chosen.values())):
        count = sum(p == pipeline for p in chosen.values())
        log.info("%d subjects without a raw T1w: taken from %s", count, pipeline)
    return images


def _one_a_session(paths: list[Path]) -> list[Record]:
    groups: dict[tuple[str, str], list[tuple[list[str], Path]]] = defaultdict(list)
    for path in paths:
        parts = entities(path.name)
        session = prefixed("ses", parts["ses"]) if "ses" in parts else ""
        extra = [f"{name}-{value}" for name, value in parts.items() if name not in {"sub", "ses"}]
        groups[prefixed("sub", parts.get("sub", "")), session].append((extra, path))
    records = []
    for (subject, session), choices in sorted(groups.items()):
        choices.sort(key=lambda c: (len(c[0]), natural("_".join(c[0])), str(c[1])))
        extra = choices[0][0]
        # Equal names (.nii beside .nii.gz) all go on: the duplicate check judges by content.
        taken = [choice for choice in choices if choice[0] == extra]
        others = [path.name for other, path in choices if other != extra]
        if others:
            name = taken[0][1].name
            log.info("%s %s: several T1w; %s taken, not %s", subject, session, name, others)
        kept = [part for part in extra if part.split("-")[0] in KEPT_ENTITIES]
        scan_id = "_".join(part for part in (subject, session, *kept) if part)
        records += [Record(scan_id, subject, session, path) for _, path in taken]
    return records


def _truth(root: Path) -> dict[str, dict[str, Any]]:
    """Return scan_id → ground truth, as phantom cohorts carry it."""
    if not (root / TRUTH).is_file():
        return {}
    table = read_table(root / TRUTH)
    drop = ("scan_id", "subject_id", "session_id", "participant_id")
    rows = table.dropna(subset=["scan_id"]).iterrows()
    return {str(row["scan_id"]): labels_of(pd.Series(row), drop=drop) for _, row in rows}
