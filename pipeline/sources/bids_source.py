"""BIDS datasets: one T1w a session, and the ground truth of phantoms."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.labels.names import BidsLabels
from pipeline.labels.people_tables import folder_names, rows_by_folder
from pipeline.labels.scan_records import ScanRecord, entities, labels_of, prefixed, read_table
from pipeline.sources.bids_choice import ImageChoice, suffix_of
from pipeline.sources.bids_survey import survey_images
from pipeline.sources.file_kinds import stem_of
from pipeline.sources.same_name_images import drop_other_formats
from schemas.manifest import SELECTION, QuarantineRow

log = logging.getLogger(__name__)

TRUTH = Path("derivatives/truth/truth.tsv")
KEPT_ENTITIES = ("acq", "ce", "rec", "run", "echo", "part", "inv")
"""Entities that become part of a scan id, in BIDS order."""


def bids_records(
    root: Path,
    listed: Collection[str] = (),
    choice: ImageChoice | None = None,
    subjects: Collection[str] | None = None,
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return one T1w a session of every subject, with its ground truth, and rows of the others.

    A subject of participants.tsv without an image of its own is looked up below `derivatives/`.
    Where a session has several T1w, `choice` ranks them: the record has the first, and the others
    in the order in which they are to be tried; the log names them.

    Parameters
    ----------
    listed
        Subjects of participants.tsv.
    subjects
        The only subjects (sub-<label>) to look at; None for all.

    Returns
    -------
    records, refused
        `refused` has a row for each subject and session without any T1w, for each T1w that is not
        taken, and for each image whose name and folder have different subjects or sessions.

    Raises
    ------
    ContractError
        If the names of two subjects, or of two sessions of one, become the same label.
    """
    choice = choice or ImageChoice()
    people, _ = rows_by_folder({name: {} for name in listed}, folder_names(root))
    raw = survey_images(root, choice, subjects)
    wanted = set(people) - raw.with_t1w
    derived = _derived(root, wanted, choice) if wanted else []
    kept, same_names = drop_other_formats([*raw.images, *derived])
    _check_names(root, kept)
    misnamed = {path: fault for path in kept if (fault := _misnamed(path))}
    records, later = _one_a_session([path for path in kept if path not in misnamed], choice)
    refused = [_row(path, fault, "cohort") for path, fault in misnamed.items()]
    refused += [_row(path, why, "cohort") for path, why in raw.faults]
    refused += raw.lacking(people, records)
    refused += later + [_row(path, why, SELECTION) for path, why in [*same_names, *raw.left]]
    unit1 = sum(suffix_of(record.path) == "UNIT1" for record in records)
    if unit1:
        log.info(
            "%s: %d images are UNIT1 of MP2RAGE; the noise of their air is cut off with the brain"
            " mask",
            root,
            unit1,
        )
    truth = _truth(root)
    for record in records:
        record.labels = truth.get(record.scan_id, {})
    return records, refused


def _check_names(root: Path, paths: Iterable[Path]) -> None:
    """Refuse names of two subjects, or two sessions, that would become the same label."""
    label = BidsLabels(root)
    for parts in map(entities, (path.name for path in paths)):
        subject = label("sub", parts.get("sub", ""))
        label("ses", parts.get("ses", ""), within=subject)


def _row(path: Path, reason: str, stage: str) -> QuarantineRow:
    return {"scan_id": stem_of(path.name), "path": str(path), "stage": stage, "reason": reason}


def _misnamed(path: Path) -> str | None:
    """Return how the folders above a file contradict its name, or None."""
    parts = entities(path.name)
    for kind in ("sub", "ses"):
        folder = next((p for p in reversed(path.parts[:-1]) if p.startswith(f"{kind}-")), None)
        named = f"{kind}-{parts[kind]}" if kind in parts else None
        if folder is not None and named != folder:
            return f"its name says {named or f'no {kind}-'}, its folder {folder}; rename one"
    return None


def _derived(root: Path, wanted: set[str], choice: ImageChoice) -> list[Path]:
    """Return T1w images of the wanted subjects below derivatives/, of one pipeline a subject."""
    chosen: dict[str, Path] = {}
    images: list[Path] = []
    for pipeline in sorted(p for p in (root / "derivatives").glob("*") if p.is_dir()):
        for path in sorted(pipeline.rglob("sub-*.nii*")):
            subject = f"sub-{entities(path.name).get('sub', '')}"
            usable = choice.takes(path) and choice.fits(path) and subject in wanted
            if usable and chosen.setdefault(subject, pipeline) == pipeline:
                images.append(path)
    for pipeline in sorted(set(chosen.values())):
        count = sum(p == pipeline for p in chosen.values())
        log.info("%d subjects without a raw T1w: taken from %s", count, pipeline)
    return images


def _one_a_session(
    paths: list[Path], choice: ImageChoice
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return one record a session, and quarantine rows of its other images."""
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        parts = entities(path.name)
        session = prefixed("ses", parts["ses"]) if "ses" in parts else ""
        groups[prefixed("sub", parts.get("sub", "")), session].append(path)
    records, rows = [], []
    for (subject, session), images in sorted(groups.items()):
        images.sort(key=choice.rank)
        filled = [path for path in images if path.is_file() and path.stat().st_size] or images[:1]
        rows += [_row(path, "file is empty or missing", "cohort") for path in images
                 if path not in filled]  # fmt: skip
        first = filled[0]
        # Equal names (.nii beside .nii.gz) are all kept: the duplicate check compares contents.
        taken = [path for path in filled if stem_of(path.name) == stem_of(first.name)]
        others = [path for path in filled if path not in taken]
        if others:
            names = [path.name for path in others]
            log.info("%s %s: several T1w; %s taken, not %s", subject, session, first.name, names)
            why = f"{first.name} is taken for this session; tried where that is refused"
            rows += [_row(path, why, SELECTION) for path in others]
        kept = [f"{k}-{v}" for k, v in entities(first.name).items() if k in KEPT_ENTITIES]
        scan_id = "_".join(part for part in (subject, session, *kept) if part)
        further = tuple((path, "; ".join(choice.notes(path))) for path in others)
        notes = tuple(choice.notes(first))
        records += [
            ScanRecord(scan_id, subject, session, path, notes=notes, others=further)
            for path in taken
        ]
    return records, rows


def _truth(root: Path) -> dict[str, dict[str, Any]]:
    """Return scan_id → ground truth, from the table that phantom cohorts have."""
    if not (root / TRUTH).is_file():
        return {}
    table = read_table(root / TRUTH)
    drop = ("scan_id", "subject_id", "session_id", "participant_id")
    rows = table.dropna(subset=["scan_id"]).iterrows()
    return {str(row["scan_id"]): labels_of(pd.Series(row), drop=drop) for _, row in rows}
